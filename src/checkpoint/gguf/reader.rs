//! Bounds-checked reading of little-endian fields.

/// What was read, or the reason why it could not be. The caller adds the path.
pub(super) type Parse<T> = std::result::Result<T, String>;

/// The longest string that is read, as in llama.cpp.
const MAX_STRING: u64 = 1 << 30;

/// A position in a byte slice that only moves forward.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Reader<'a> {
    /// Starts reading at position `at`, or at the end if that comes first.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at: at.min(bytes.len()) }
    }

    /// Reads the next `count` bytes, or fails if fewer are left.
    pub(super) fn take(&mut self, count: u64) -> Parse<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(count).ok().and_then(|count| rest.get(..count)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(format!(
                "{count} bytes are needed from byte {}, but the file ends at byte {}; it is truncated or damaged: \
                 download it again",
                self.at,
                self.bytes.len()
            )),
        }
    }

    /// The next `N` bytes by value.
    pub(super) fn array<const N: usize>(&mut self) -> Parse<[u8; N]> {
        self.take(N as u64).map(|taken| *taken.first_chunk().expect("as many as taken"))
    }

    /// The next four bytes as an integer.
    pub(super) fn u32(&mut self) -> Parse<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// The next eight bytes as an integer.
    pub(super) fn u64(&mut self) -> Parse<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A string: a length and as many bytes, which need not be UTF-8.
    pub(super) fn string(&mut self) -> Parse<&'a [u8]> {
        let start = self.at;
        let length = self.u64()?;
        if length > MAX_STRING {
            return Err(format!("the string at byte {start} claims {length} bytes, expected at most {MAX_STRING}"));
        }
        self.take(length)
    }

    /// A count of items that take at least `least` bytes each; an error if more than `most`, or more than can follow.
    pub(super) fn count(&mut self, what: &str, least: u64, most: u64) -> Parse<u64> {
        let start = self.at;
        let count = self.u64()?;
        if count > most {
            return Err(format!("the header claims {count} {what} at byte {start}, expected at most {most}"));
        }
        let left = self.bytes.len() - self.at;
        // The product cannot overflow: callers pass a `most` of at most 2^30 and a `least` of at most 24.
        if count * least > left as u64 {
            return Err(format!(
                "the header claims {count} {what} at byte {start}, but only {left} bytes follow; the file is \
                 truncated or damaged: download it again"
            ));
        }
        Ok(count)
    }
}
