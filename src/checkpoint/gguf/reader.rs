//! Bounds-checked reads of little-endian fields.

/// The reason why bytes could not be read, without the path, which the caller knows.
pub(super) type Parse<T> = std::result::Result<T, String>;

/// The longest string that mainline llama.cpp reads.
const MAX_STRING: u64 = 1 << 30;

/// A position in a byte slice that only moves forward.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at: at.min(bytes.len()) }
    }

    pub(super) fn take(&mut self, count: u64) -> Parse<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(count).ok().and_then(|count| rest.get(..count)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(format!(
                "{count} bytes are needed from byte {}, but the file ends at byte {}; it is truncated or \
                 broken: download it again",
                self.at,
                self.bytes.len()
            )),
        }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Parse<[u8; N]> {
        self.take(N as u64).map(|taken| *taken.first_chunk().expect("as many as taken"))
    }

    pub(super) fn u32(&mut self) -> Parse<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Parse<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A length and that many bytes, which need not be UTF-8.
    pub(super) fn string(&mut self) -> Parse<&'a [u8]> {
        let start = self.at;
        let length = self.u64()?;
        if length > MAX_STRING {
            return Err(format!("the string at byte {start} claims {length} bytes; at most {MAX_STRING} are read"));
        }
        self.take(length)
    }

    /// A count of items of at least `least` bytes each, refused if so many cannot follow.
    pub(super) fn count(&mut self, what: &str, least: u64, most: u64) -> Parse<u64> {
        let start = self.at;
        let count = self.u64()?;
        if count > most {
            return Err(format!("the header claims {count} {what} at byte {start}; at most {most} are read"));
        }
        let left = self.bytes.len() - self.at;
        // `most` and `least` are small enough for the product.
        if count * least > left as u64 {
            return Err(format!(
                "the header claims {count} {what} at byte {start}, but only {left} bytes follow; the file is \
                 truncated or broken: download it again"
            ));
        }
        Ok(count)
    }
}
