//! A text that is kept and charged.

use std::borrow::Borrow;
use std::ops::Deref;
use std::sync::Arc;

use super::charge::Charge;

/// A text that is charged until its last clone is dropped; cheap to clone. Compares as the text itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    text: Box<str>,
    _charge: Charge,
}

impl Text {
    pub(super) fn new(text: &str, charge: Charge) -> Self {
        Self(Arc::new(Kept { text: text.into(), _charge: charge }))
    }

    /// Whether both are clones of one text, and not only equal.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Kept {}

impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kept {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.text
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self
    }
}
