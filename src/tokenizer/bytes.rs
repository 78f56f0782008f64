//! How vocabularies spell bytes: as printable characters (GPT-2), or as `<0xXX>` (SentencePiece).

use std::sync::LazyLock;

/// GPT-2's printable character for every byte: the same character if it is printable, else the next one from U+0100 on.
static CHARS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut free = '\u{100}'..;
    std::array::from_fn(|byte| match byte as u8 {
        byte @ (33..=126 | 161..=172 | 174..=255) => byte as char,
        _ => free.next().expect("there are more characters than bytes"),
    })
});

/// The inverse of `CHARS`: the byte of each character below U+0200.
static BYTES: LazyLock<[Option<u8>; 0x200]> = LazyLock::new(|| {
    let mut bytes = [None; 0x200];
    CHARS.iter().zip(0..=u8::MAX).for_each(|(c, byte)| bytes[*c as usize] = Some(byte));
    bytes
});

/// Writes a text to `spelled` as byte-level tokens spell it, and drops what `spelled` held.
pub(super) fn to_byte_level(text: &str, spelled: &mut String) {
    spelled.clear();
    spelled.extend(text.bytes().map(|byte| CHARS[byte as usize]));
}

/// The bytes that a byte-level token stands for. A token with a character that is no byte's stands for its own text.
pub(super) fn from_byte_level(text: &str) -> Vec<u8> {
    let bytes = text.chars().map(|c| BYTES.get(c as usize).copied().flatten());
    bytes.collect::<Option<Vec<u8>>>().unwrap_or_else(|| text.as_bytes().to_vec())
}

/// The byte that a token such as `<0x0A>` stands for; nothing for any other text.
pub(super) fn from_hex(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    hex.then(|| u8::from_str_radix(digits, 16).expect("two hexadecimal digits"))
}
