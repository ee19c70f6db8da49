//! Insertion into a table that forgets its oldest entry.

use std::collections::BTreeMap;

/// Inserts an entry. If the table then has more than `capacity` entries, removes the entry with the smallest `age`,
/// which is returned.
pub(super) fn insert_bounded<T, K: Ord>(
    table: &mut BTreeMap<u64, T>,
    capacity: usize,
    (number, entry): (u64, T),
    age: impl Fn(&T) -> K,
) -> Option<T> {
    table.insert(number, entry);
    if table.len() <= capacity {
        return None;
    }
    let oldest = table.iter().min_by_key(|(_, entry)| age(entry)).map(|(number, _)| *number)?;
    table.remove(&oldest)
}
