//! The size of JSON documents of strangers, counted before or while they are parsed.

/// Counts bytes and values of a document.
#[derive(Default)]
pub struct JsonSize {
    /// Bytes so far.
    pub bytes: u64,
    /// Values so far, at least as many as there are.
    pub values: usize,
    in_text: bool,
    escaped: bool,
}

impl JsonSize {
    /// The size of a whole document.
    pub fn of(text: &str) -> JsonSize {
        let mut size = JsonSize::default();
        size.add(text.as_bytes());
        size
    }

    /// Counts the next bytes of a document.
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        for byte in bytes {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_text => self.escaped = true,
                b'"' => self.in_text = !self.in_text,
                b',' | b':' | b'[' | b'{' if !self.in_text => self.values += 1, // each begins one value at most
                _ => (),
            }
        }
    }
}
