//! The messages of a log. The first one is stored inline: a log that never holds two, such as that of the only answer to
//! a request, allocates no memory for them.

use std::collections::VecDeque;

/// A queue that stores its first element inline.
#[derive(Debug)]
pub(super) struct Slots<T> {
    /// `None` where the queue is empty.
    first: Option<T>,
    others: VecDeque<T>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { first: None, others: VecDeque::new() }
    }
}

impl<T> Slots<T> {
    /// The number of elements.
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    /// Appends an element.
    pub(super) fn push_back(&mut self, element: T) {
        match &self.first {
            None => self.first = Some(element),
            Some(_) => self.others.push_back(element),
        }
    }

    /// Removes and returns the first element.
    pub(super) fn pop_front(&mut self) -> Option<T> {
        std::mem::replace(&mut self.first, self.others.pop_front())
    }

    /// The element at `index`; `None` behind the end.
    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        match index.checked_sub(1) {
            None => self.first.as_mut(),
            Some(index) => self.others.get_mut(index),
        }
    }

    /// All elements from `start` on.
    pub(super) fn iter_mut_from(&mut self, start: usize) -> impl Iterator<Item = &mut T> {
        self.first.iter_mut().chain(&mut self.others).skip(start)
    }

    /// All elements.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.others)
    }
}

impl<T> IntoIterator for Slots<T> {
    type Item = T;
    type IntoIter = std::iter::Chain<std::option::IntoIter<T>, std::collections::vec_deque::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_queue(steps in prop::collection::vec(any::<Option<u8>>(), 0..40)) {
            let (mut slots, mut model) = (Slots::default(), VecDeque::new());
            for step in steps {
                match step {
                    Some(element) => {
                        slots.push_back(element);
                        model.push_back(element);
                    }
                    None => prop_assert_eq!(slots.pop_front(), model.pop_front()),
                }
                prop_assert_eq!(slots.len(), model.len());
                for index in 0..=model.len() {
                    prop_assert_eq!(slots.get_mut(index), model.get_mut(index));
                    prop_assert!(slots.iter_mut_from(index).eq(model.range_mut(index..)));
                }
            }
            prop_assert!(slots.iter().eq(&model));
            prop_assert!(slots.into_iter().eq(model));
        }
    }
}
