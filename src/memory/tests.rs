#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use bytes::Bytes;
use proptest::prelude::*;

use super::*;

#[test]
fn an_account_holds_only_what_is_left_for_the_others() {
    // A quarter is the reserve.
    let memory = Memory::new(1200);
    let (a, b) = (memory.account("a"), memory.account("b"));
    let mut first = a.charge(450).unwrap();
    assert_eq!(first.grow(1), Err(Exhausted::Share));
    assert_eq!(a.charge(451).unwrap_err(), Exhausted::TooLarge);
    let second = b.charge(225).unwrap();
    assert_eq!(b.charge(1).unwrap_err(), Exhausted::Share);
    assert_eq!((memory.held(), a.held(), b.held()), (675, 450, 225));
    assert!(memory.account("c").charge(112).is_ok(), "there is room for one more, always");
    drop((first, second));
    assert_eq!((memory.held(), a.held(), b.held()), (0, 0, 0));
}

#[test]
fn an_account_keeps_to_its_own_limit_and_all_handles_are_one_account() {
    let memory = Memory::new(1000);
    let account = memory.account("a");
    account.set_limit(Some(100));
    let held = account.charge(60).unwrap();
    let again = memory.account("a");
    assert_eq!(again.held(), 60);
    assert_eq!(again.charge(41).unwrap_err(), Exhausted::Limit);
    assert_eq!(again.charge(101).unwrap_err(), Exhausted::TooLarge);
    drop(held);
    assert!(again.charge(100).is_ok());
}

#[test]
fn bytes_are_charged_until_their_last_slice_is_gone() {
    let memory = Memory::new(10_000);
    let account = memory.account("a");
    let message = account.hold(Bytes::from_static(b"message"), 64).unwrap();
    let slice = message.slice(2..4);
    assert_eq!(memory.held(), 64 + held::OVERHEAD);
    drop(message);
    assert_eq!((&slice[..], memory.held()), (&b"ss"[..], 64 + held::OVERHEAD));
    drop(slice);
    assert_eq!(memory.held(), 0);
}

#[test]
fn a_smaller_budget_refuses_more_and_takes_nothing_away() {
    let memory = Memory::new(1200);
    let account = memory.account("a");
    let held = account.charge(400).unwrap();
    memory.set_limit(100);
    assert_eq!((account.charge(1).unwrap_err(), memory.held()), (Exhausted::Share, 400));
    drop(held);
    assert!(account.charge(30).is_ok());
}

#[test]
fn connections_have_a_part_of_their_own() {
    let memory = Memory::new(1200);
    let connections = memory.connections().charge(225).unwrap();
    assert_eq!(memory.connections().charge(1).unwrap_err(), Exhausted::Share);
    assert_eq!(memory.connections().charge(226).unwrap_err(), Exhausted::TooLarge);
    let tenant = memory.tenant("t").charge(Memory::most_of_one(1200)).unwrap();
    let networks = ["a", "b"].map(|network| memory.unauthenticated(network));
    assert_eq!(networks.each_ref().map(Account::most), [37, 37]);
    let requests = networks.map(|network| network.charge(12).unwrap());
    assert_eq!(memory.held(), 225 + 450 + 24);
    drop((connections, tenant, requests));
    assert_eq!(memory.held(), 0);
}

proptest! {
    #[test]
    fn the_budget_holds_and_everything_comes_back(
        steps in prop::collection::vec((0usize..3, 0usize..4, 0usize..600), 0..60),
    ) {
        let memory = Memory::new(1000);
        let accounts = ["a", "b", "c"].map(|holder| memory.account(holder));
        let mut charges: Vec<Charge> = Vec::new();
        for (who, what, bytes) in steps {
            match (what, charges.get_mut(who)) {
                (0, _) => charges.extend(accounts[who].charge(bytes)),
                (1, Some(charge)) => drop(charge.resize(bytes)),
                (2, Some(charge)) => charge.shrink(bytes),
                (_, Some(_)) => drop(charges.swap_remove(who)),
                (_, None) => {}
            }
            prop_assert_eq!(memory.held(), charges.iter().map(Charge::bytes).sum::<usize>());
            prop_assert!(memory.held() <= memory.limit());
        }
        charges.clear();
        prop_assert_eq!(memory.held(), 0);
    }
}
