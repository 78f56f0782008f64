/* Wine before version 9 has no bcryptprimitives.dll, from which Rust's standard library takes its random numbers. This
 * one serves tests under such a Wine: `make windows` compiles it, and no wheel contains it. */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(void *buffer, ULONG bytes); /* RtlGenRandom, in advapi32.dll */

__declspec(dllexport) BOOL WINAPI ProcessPrng(BYTE *buffer, SIZE_T bytes) {
    while (bytes > 0) {
        ULONG part = bytes < 1 << 20 ? (ULONG)bytes : 1 << 20;
        if (!SystemFunction036(buffer, part)) return FALSE;
        buffer += part;
        bytes -= part;
    }
    return TRUE;
}
