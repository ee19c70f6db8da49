//! Finds where JSON values begin and end, without decoding them: one pass, no recursion, and no memory but one bit for each
//! level of nesting. What costs a peer a byte costs the gateway a byte's time, whatever the byte is.

use super::string::unquoted;

/// Why a text is no JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The text is over before the value is.
    #[error("the text ends too early")]
    TooShort,
    /// A character stands where JSON allows none like it.
    #[error("an unexpected character at byte {0}")]
    Unexpected(usize),
    /// The bytes are no UTF-8.
    #[error("bytes that are no UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// A string has half of a surrogate pair, so that it is no text.
    #[error("a string with half of a surrogate pair before byte {0}")]
    Surrogate(usize),
}

/// A position in a JSON text.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// At the beginning of a text.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// At the beginning of a text that comes as bytes.
    ///
    /// # Errors
    /// The bytes are no UTF-8.
    pub fn of_bytes(bytes: &'a [u8]) -> Result<Self, Malformed> {
        std::str::from_utf8(bytes).map(Self::new).map_err(|error| Malformed::NotUtf8(error.valid_up_to()))
    }

    /// The next byte that is no white space, which stays.
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

    /// One value, as it is written.
    ///
    /// # Errors
    /// What comes is no JSON value.
    pub fn value(&mut self) -> Result<&'a str, Malformed> {
        self.peek();
        let start = self.at;
        self.skip()?;
        Ok(self.since(start))
    }

    /// An object, as it is written. `member` gets each key, without its quotes and not decoded, and reads the value.
    ///
    /// # Errors
    /// What comes is no JSON object, or `member` fails.
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

    /// The next element of an array, its brackets and commas passed over; `None` at its end.
    ///
    /// # Errors
    /// What comes is no JSON array.
    pub(super) fn next_element(&mut self, is_first: bool) -> Result<Option<&'a str>, Malformed> {
        if is_first {
            self.expect(b'[')?;
            if self.peek() == Some(b']') {
                self.at += 1;
                return Ok(None);
            }
            return self.value().map(Some);
        }
        match self.after_white()? {
            b',' => self.value().map(Some),
            b']' => Ok(None),
            _ => Err(self.unexpected()),
        }
    }

    /// The end of the text: nothing but white space is left.
    ///
    /// # Errors
    /// Something is left.
    pub fn end(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(Malformed::Unexpected(self.at)),
        }
    }

    /// The position, in bytes.
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

    /// The byte that was read last is wrong.
    fn unexpected(&self) -> Malformed {
        Malformed::Unexpected(self.at.saturating_sub(1))
    }

    /// A key without its quotes, and the colon behind it.
    fn key(&mut self) -> Result<&'a str, Malformed> {
        self.expect(b'"')?;
        let start = self.at;
        self.string()?;
        let key = self.text.get(start..self.at - 1).unwrap_or_default();
        self.expect(b':')?;
        Ok(key)
    }

    /// Skips one value.
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

    /// The rest of a string, behind its first quote.
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

    /// The rest of a number, behind its first character.
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

/// Which of eight bytes are a quote, a backslash or a control character: the lowest bit that is set tells the first of them.
fn special(eight: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zeros = |bytes: u64| bytes.wrapping_sub(ONES) & !bytes;
    let quotes = zeros(eight ^ (ONES * b'"' as u64));
    let backslashes = zeros(eight ^ (ONES * b'\\' as u64));
    let controls = eight.wrapping_sub(ONES * 0x20) & !eight;
    (quotes | backslashes | controls) & HIGH
}

/// The arrays and objects that are open, a bit each.
#[derive(Default)]
struct Nesting {
    depth: usize,
    /// The innermost ones.
    bits: u64,
    /// The others, 64 each.
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

/// The elements of an array, raw. After one that is no JSON there is no other.
pub fn elements(array: &str) -> impl Iterator<Item = Result<&str, Malformed>> {
    let (mut scanner, mut is_first, mut is_over) = (Scanner::new(array), true, false);
    std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let element = scanner.next_element(std::mem::take(&mut is_first)).transpose();
        is_over = !matches!(element, Some(Ok(_)));
        element
    })
}

/// Whether something holds of all members of an object: their names, and their raw values. Of no other value.
pub fn all_members(object: &str, holds: impl Fn(&str, &str) -> bool) -> bool {
    let mut all = true;
    let mut scanner = Scanner::new(object);
    let read = scanner.object(|scanner, key| {
        let value = scanner.value()?;
        all = all && unquoted(key).is_some_and(|name| holds(&name, value));
        Ok(())
    });
    read.is_ok() && all
}

/// The value of a member of an object, raw. `None` where it is not there, or there twice, or the value is no object.
pub fn member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    let (mut found, mut count) = (None, 0);
    let mut scanner = Scanner::new(object);
    let read = scanner.object(|scanner, key| {
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
