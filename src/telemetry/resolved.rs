//! Metrics of a family that have been looked up, so that a further use takes no lock.

use std::sync::OnceLock;

/// Up to `N` metrics of a family by the value of a label, in the order of their first use. Further metrics are looked
/// up each time.
#[derive(Debug)]
pub(super) struct Resolved<L, M, const N: usize>([OnceLock<(L, M)>; N]);

impl<L, M, const N: usize> Default for Resolved<L, M, N> {
    fn default() -> Self {
        Self([const { OnceLock::new() }; N])
    }
}

impl<L: PartialEq + Copy, M, const N: usize> Resolved<L, M, N> {
    /// Applies `act` to the metric with this label. `look_up` finds the metric in its family.
    pub(super) fn with(&self, label: L, look_up: impl Fn() -> M, act: impl FnOnce(&M)) {
        for place in &self.0 {
            let (known, metric) = place.get_or_init(|| (label, look_up()));
            if *known == label {
                return act(metric);
            }
        }
        act(&look_up());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn each_label_is_looked_up_once_as_long_as_there_is_a_place() {
        let resolved = Resolved::<_, u32, 2>::default();
        let looked_up = RefCell::new(Vec::new());
        for label in [1, 2, 1, 3, 2, 3, 1] {
            let look_up = || {
                looked_up.borrow_mut().push(label);
                label * 10
            };
            resolved.with(label, look_up, |metric| assert_eq!(*metric, label * 10));
        }
        assert_eq!(*looked_up.borrow(), [1, 2, 3, 3]);
    }
}
