//! How vocabularies spell bytes.

/// GPT-2's printable stand-in of every byte: itself if printable, else the next free character from U+0100 on.
fn stand_ins() -> impl Iterator<Item = (u8, char)> {
    let mut next = 0x100;
    (0..=255u8).map(move |byte| match byte {
        33..=126 | 161..=172 | 174..=255 => (byte, byte as char),
        _ => {
            next += 1;
            (byte, char::from_u32(next - 1).expect("a character"))
        }
    })
}

/// The bytes that a byte-level token stands for.
pub(super) fn from_byte_level(text: &str) -> Vec<u8> {
    static BYTES: std::sync::OnceLock<Vec<Option<u8>>> = std::sync::OnceLock::new();
    let bytes = BYTES.get_or_init(|| {
        let mut bytes = vec![None; 0x200];
        stand_ins().for_each(|(byte, stand_in)| bytes[stand_in as usize] = Some(byte));
        bytes
    });
    let mut out = Vec::with_capacity(text.len());
    for c in text.chars() {
        match bytes.get(c as usize).copied().flatten() {
            Some(byte) => out.push(byte),
            None => out.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    out
}

/// The byte of a token such as `<0x0A>`.
pub(super) fn from_hex(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}
