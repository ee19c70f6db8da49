//! Finds where JSON values begin and end without decoding them: one pass, no recursion, and one bit of memory per level
//! of nesting. The time is proportional to the number of bytes, whatever the bytes are.

use super::string::unquoted;

/// The reason why a text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The text ends before its value does.
    #[error("the text ends too early")]
    TooShort,
    /// JSON does not allow the character at this byte offset.
    #[error("an unexpected character at byte {0}")]
    Unexpected(usize),
    /// The byte at this offset begins a sequence that is not UTF-8.
    #[error("bytes that are no UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// A string that ends before this byte offset contains an unpaired surrogate and so cannot be decoded.
    #[error("a string with half of a surrogate pair before byte {0}")]
    Surrogate(usize),
}

/// A JSON text and the position up to which the text has been read.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// A scanner at the beginning of `text`.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// A scanner at the beginning of a text that is given as bytes.
    ///
    /// # Errors
    /// The bytes are not UTF-8.
    pub fn of_bytes(bytes: &'a [u8]) -> Result<Self, Malformed> {
        std::str::from_utf8(bytes).map(Self::new).map_err(|error| Malformed::NotUtf8(error.valid_up_to()))
    }

    /// Skips white space and returns the byte after it, without reading that byte. `None` at the end of the text.
    pub fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Reads one value and returns its raw text, without the white space around the value.
    ///
    /// # Errors
    /// The text does not continue with a JSON value.
    pub fn value(&mut self) -> Result<&'a str, Malformed> {
        self.peek();
        let start = self.at;
        self.skip()?;
        Ok(self.since(start))
    }

    /// Reads an object and returns its raw text. `member` is called for each member with the raw name without quotes,
    /// and has to read the value.
    ///
    /// # Errors
    /// The text does not continue with a JSON object, or `member` fails.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &'a str) -> Result<(), Malformed>,
    ) -> Result<&'a str, Malformed> {
        self.peek();
        let start = self.at;
        self.expect(b'{')?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(self.since(start));
        }
        loop {
            let key = self.key()?;
            member(self, key)?;
            match self.after_white()? {
                b',' => {}
                b'}' => return Ok(self.since(start)),
                _ => return Err(self.unexpected()),
            }
        }
    }

    /// The raw elements of an array that is the whole text. Each element is read on demand, and iteration ends after
    /// the first error.
    pub(super) fn elements(mut self) -> impl Iterator<Item = Result<&'a str, Malformed>> {
        let mut is_over = false;
        std::iter::from_fn(move || {
            if is_over {
                return None;
            }
            let element = self.next_element().transpose();
            is_over = !matches!(element, Some(Ok(_)));
            element
        })
    }

    /// Reads the next element of the array, with the bracket or comma before the element. `None` at the end of the
    /// text.
    fn next_element(&mut self) -> Result<Option<&'a str>, Malformed> {
        if self.at == 0 {
            self.expect(b'[')?;
            if self.peek() != Some(b']') {
                return self.value().map(Some);
            }
        }
        match self.after_white()? {
            b',' => self.value().map(Some),
            b']' => self.end().map(|()| None),
            _ => Err(self.unexpected()),
        }
    }

    /// Checks that only white space is left.
    ///
    /// # Errors
    /// Other characters are left.
    pub fn end(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(Malformed::Unexpected(self.at)),
        }
    }

    /// The offset of the next unread byte.
    pub fn at(&self) -> usize {
        self.at
    }

    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn next(&mut self) -> Result<u8, Malformed> {
        let byte = self.text.as_bytes().get(self.at).copied().ok_or(Malformed::TooShort)?;
        self.at += 1;
        Ok(byte)
    }

    fn after_white(&mut self) -> Result<u8, Malformed> {
        self.peek();
        self.next()
    }

    fn expect(&mut self, wanted: u8) -> Result<(), Malformed> {
        if self.after_white()? == wanted { Ok(()) } else { Err(self.unexpected()) }
    }

    /// The error for the byte that was read last.
    fn unexpected(&self) -> Malformed {
        Malformed::Unexpected(self.at.saturating_sub(1))
    }

    /// Reads the name of a member and the colon behind the name. Returns the raw name without quotes.
    fn key(&mut self) -> Result<&'a str, Malformed> {
        self.expect(b'"')?;
        let start = self.at;
        self.string()?;
        let key = self.text.get(start..self.at - 1).unwrap_or_default();
        self.expect(b':')?;
        Ok(key)
    }

    /// Skips one value of any depth.
    fn skip(&mut self) -> Result<(), Malformed> {
        let mut open = Nesting::default();
        loop {
            match self.after_white()? {
                b'{' if self.peek() == Some(b'}') => self.at += 1,
                b'{' => {
                    open.push(true);
                    self.key()?;
                    continue;
                }
                b'[' if self.peek() == Some(b']') => self.at += 1,
                b'[' => {
                    open.push(false);
                    continue;
                }
                b'"' => self.string()?,
                first @ (b'-' | b'0'..=b'9') => self.number(first)?,
                b't' => self.word(b"rue")?,
                b'f' => self.word(b"alse")?,
                b'n' => self.word(b"ull")?,
                _ => return Err(self.unexpected()),
            }
            loop {
                let Some(is_object) = open.innermost() else { return Ok(()) };
                match self.after_white()? {
                    b',' => {
                        if is_object {
                            self.key()?;
                        }
                        break;
                    }
                    b'}' if is_object => open.pop(),
                    b']' if !is_object => open.pop(),
                    _ => return Err(self.unexpected()),
                }
            }
        }
    }

    /// Skips the rest of a string whose opening quote has been read.
    fn string(&mut self) -> Result<(), Malformed> {
        let bytes = self.text.as_bytes();
        loop {
            // Eight bytes at a time, as long as none of them is special.
            while let Some(eight) = bytes.get(self.at..self.at + 8).and_then(|eight| <[u8; 8]>::try_from(eight).ok()) {
                let special = special(u64::from_le_bytes(eight));
                if special != 0 {
                    self.at += special.trailing_zeros() as usize / 8;
                    break;
                }
                self.at += 8;
            }
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                0..=0x1f => return Err(self.unexpected()),
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => (0..4).try_for_each(|_| match self.next()?.is_ascii_hexdigit() {
                true => Ok(()),
                false => Err(self.unexpected()),
            }),
            _ => Err(self.unexpected()),
        }
    }

    /// Skips the rest of a number whose first character, `first`, has been read.
    fn number(&mut self, first: u8) -> Result<(), Malformed> {
        let digit = if first == b'-' { self.next()? } else { first };
        match digit {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return Err(self.unexpected()),
        }
        let bytes = self.text.as_bytes();
        if bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(())
    }

    fn some_digits(&mut self) -> Result<(), Malformed> {
        match self.next()? {
            b'0'..=b'9' => {
                self.digits();
                Ok(())
            }
            _ => Err(self.unexpected()),
        }
    }

    fn digits(&mut self) {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn word(&mut self, rest: &[u8]) -> Result<(), Malformed> {
        rest.iter().try_for_each(|wanted| if self.next()? == *wanted { Ok(()) } else { Err(self.unexpected()) })
    }
}

/// Finds quotes, backslashes and control characters among eight bytes in little-endian order. The lowest bit set in the
/// result is in the byte of the first such character; the result is 0 if there is none.
fn special(eight: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zeros = |bytes: u64| bytes.wrapping_sub(ONES) & !bytes;
    let quotes = zeros(eight ^ (ONES * b'"' as u64));
    let backslashes = zeros(eight ^ (ONES * b'\\' as u64));
    let controls = eight.wrapping_sub(ONES * 0x20) & !eight;
    (quotes | backslashes | controls) & HIGH
}

/// The arrays and objects that are open, one bit each: set for an object.
#[derive(Default)]
struct Nesting {
    depth: usize,
    /// The innermost 1 to 64 levels, the innermost in the lowest bit.
    bits: u64,
    /// The levels outside of `bits`, 64 per number, the outermost first.
    outer: Vec<u64>,
}

impl Nesting {
    fn push(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.bits);
        }
        self.bits = self.bits << 1 | u64::from(is_object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.bits >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.bits = self.outer.pop().unwrap_or_default();
        }
    }

    fn innermost(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.bits & 1 == 1)
    }
}

/// The raw elements of a JSON array. Iteration ends after the first error, which is also the only item for any other
/// text.
pub fn elements(array: &str) -> impl Iterator<Item = Result<&str, Malformed>> {
    Scanner::new(array).elements()
}

/// The raw messages of a batch, which is a JSON array. Each message is read on demand, and iteration ends after the
/// first error. `None` if the first character that is not white space is no `[`.
///
/// # Errors
/// The bytes are not UTF-8.
pub fn batch(bytes: &[u8]) -> Option<Result<impl Iterator<Item = Result<&str, Malformed>>, Malformed>> {
    let is_array = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    is_array.then(|| Scanner::of_bytes(bytes).map(Scanner::elements))
}

/// Whether `holds` is true for the decoded name and the raw value of every member of an object. `false` for a value
/// that is not an object, or if a name cannot be decoded.
pub fn all_members(object: &str, holds: impl Fn(&str, &str) -> bool) -> bool {
    let mut all = true;
    let read = Scanner::new(object).object(|scanner, key| {
        let value = scanner.value()?;
        all = all && unquoted(key).is_some_and(|name| holds(&name, value));
        Ok(())
    });
    read.is_ok() && all
}

/// The raw value of the member with the decoded name `name`. `None` if the member is missing or appears twice, or
/// `object` is not a JSON object.
pub fn member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    let (mut found, mut count) = (None, 0);
    let read = Scanner::new(object).object(|scanner, key| {
        let value = scanner.value()?;
        if unquoted(key).is_some_and(|key| key == name) {
            (found, count) = (Some(value), count + 1);
        }
        Ok(())
    });
    found.filter(|_| count == 1 && read.is_ok())
}

#[cfg(test)]
mod tests;
