//! Recognizes common files that are not GGUF, for errors that say what to do.

/// The longest header of a safetensors file, as its reference implementation limits it.
const MOST_SAFETENSORS_HEADER: u64 = 100_000_000;

/// What a file is that was downloaded wrongly, and what to do; nothing if it does not look like that.
pub(in crate::checkpoint) fn other_file(bytes: &[u8]) -> Option<&'static str> {
    let head = &bytes[..bytes.len().min(512)];
    let text = markup(head).to_ascii_lowercase();
    if head.starts_with(b"version https://git-lfs") {
        Some("is a Git LFS pointer, not the file; run `git lfs pull` or download the file itself")
    } else if text.starts_with(b"<!doctype html") || text.starts_with(b"<html") {
        Some("is an HTML page, not a model; the download link led to a web page")
    } else if text.starts_with(b"<?xml") {
        Some("is an XML document, not a model; a server may have refused the download")
    } else {
        None
    }
}

/// Says what kind of file starts with these bytes, and what to do.
pub(super) fn describe(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(512)];
    let text = markup(head);
    let found = if let Some(found) = other_file(bytes) {
        found
    } else if head.starts_with(b"PK\x03\x04") || matches!(head, [0x80, 2..=5, ..]) {
        "is a zip or pickle file, such as a PyTorch checkpoint, which could run code and is not read; get the model \
         as GGUF or safetensors"
    } else if is_safetensors(bytes) {
        "is a safetensors file; give the path of its directory, with config.json"
    } else if [b"lmgg", b"fmgg", b"tjgg"].iter().any(|magic| head.starts_with(*magic)) {
        "has an old GGML format from before GGUF; get a newer file"
    } else if b"GGUF".starts_with(head) {
        "ends inside its first four bytes; download it again"
    } else if matches!(text.first(), Some(b'{' | b'[')) && is_text(head) {
        "is a JSON file, such as a model's configuration; give the path of a .gguf file or of the model's directory"
    } else if is_text(head) {
        "is a text file, not a model; give the path of a .gguf file"
    } else {
        let magic: Vec<String> = head.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        return format!("is not a GGUF file: it starts with the bytes {}, not with 'GGUF'", magic.join(" "));
    };
    found.to_owned()
}

/// The text after a byte order mark, white space and comments.
fn markup(head: &[u8]) -> &[u8] {
    let mut rest = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    while rest.starts_with(b"<!--") {
        let end = rest.windows(3).position(|three| three == b"-->").map_or(rest.len(), |at| at + 3);
        rest = rest[end..].trim_ascii_start();
    }
    rest
}

/// A safetensors file starts with the length of its JSON header and the header's opening brace.
fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk() else { return false };
    u64::from_le_bytes(*length) <= MOST_SAFETENSORS_HEADER && rest.first() == Some(&b'{')
}

fn is_text(head: &[u8]) -> bool {
    let printable = |text: &str| text.chars().all(|c| !c.is_control() || c.is_ascii_whitespace());
    match std::str::from_utf8(head) {
        Ok(text) => printable(text),
        // The end of `head` may cut a character in two; that does not make the file binary.
        Err(fault) => {
            fault.error_len().is_none() && std::str::from_utf8(&head[..fault.valid_up_to()]).is_ok_and(printable)
        }
    }
}
