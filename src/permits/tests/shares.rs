//! Who gets how much of what there is, and in whose turn.

use proptest::prelude::*;

use super::*;

#[test]
fn one_has_everything_where_nobody_else_may_ask_and_else_what_is_left_for_others() {
    let (ann, bob, eve) = (principal("acme", "ann"), principal("acme", "bob"), principal("other", "eve"));
    for (rivals, expected) in
        [(vec![&ann], 16), (vec![&ann, &bob], 8), (vec![&ann, &eve], 8), (vec![&ann, &bob, &eve], 4)]
    {
        let permits = Permits::default();
        let rivals: Vec<_> = rivals.into_iter().cloned().collect();
        permits.contend(contenders(&rivals));
        for ceiling in [in_use(16).0, Ceiling::Starts, Ceiling::Sessions] {
            let (limits, claimant) = ([(ceiling, 16)], Claimant::of(&ann));
            let claims: Vec<_> = std::iter::from_fn(|| permits.try_claim(&claimant, &limits).ok()).collect();
            assert_eq!(claims.len(), expected, "{rivals:?}");
            assert!(expected == 16 || permits.try_claim(&Claimant::of(&eve), &limits).is_ok());
        }
        assert!(permits.is_unused());
    }
}

#[test]
fn a_refusal_names_the_limit_and_whose_share_it_is() {
    let (ann, bob, eve) = (principal("acme", "ann"), principal("acme", "bob"), principal("other", "eve"));
    let permits = Permits::default();
    permits.contend(contenders(&[ann.clone(), eve.clone()]));
    let limits = [in_use(3)];
    let ann = Claimant::of(&ann);
    let _held = [(); 2].map(|()| permits.try_claim(&ann, &limits).unwrap());
    let full = permits.try_claim(&ann, &limits).unwrap_err();
    assert_eq!((&full.by, full.most), (&By::Tenant("acme".parse().unwrap(), 2), 3));
    let text = full.to_string();
    assert!(text.contains("your tenant holds 2 of 3 children (pool.max_children)"), "{text}");
    let _last = permits.try_claim(&Claimant::of(&eve), &limits).unwrap();
    assert_eq!(permits.try_claim(&ann, &limits).unwrap_err().by, By::All);
    let (permits, limits) = (Permits::default(), [of_tenant("acme", 2)]);
    permits.contend(contenders(&[principal("acme", "ann"), bob.clone()]));
    let _held = permits.try_claim(&ann, &limits).unwrap();
    let text = permits.try_claim(&ann, &limits).unwrap_err().to_string();
    assert!(text.contains("you hold 1 of 2 children (tenants.acme.limits.max_children)"), "{text}");
    assert!(permits.try_claim(&Claimant::of(&bob), &limits).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_waits_at_its_share_is_served_as_soon_as_others_leave_more() {
    let permits = Permits::default();
    permits.contend(contenders(&[principal("a", "only"), principal("b", "only")]));
    let limits = [in_use(4)];
    let _held = [(); 2].map(|()| permits.try_claim(&tenant("a"), &limits).unwrap());
    let of_b = permits.try_claim(&tenant("b"), &limits).unwrap();
    let waits = permits.waiter("a", &limits).await;
    let other = permits.waiter("b", &limits).await;
    assert!(!waits.is_finished() && !other.is_finished(), "one is left, and is for a third");
    drop(of_b);
    tokio::task::yield_now().await;
    assert!(other.is_finished() && !waits.is_finished());
    // A configuration with nobody else.
    permits.contend(contenders(&[principal("a", "only")]));
    assert!(waits.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn principals_of_a_tenant_take_its_turns_in_turn() {
    let (permits, limits) = (Permits::default(), [server("s", 1)]);
    let mut held = permits.try_claim(&tenant("t"), &limits).ok();
    let mut waiting = Vec::new();
    for (tenant, subject) in [("a", "1"), ("a", "1"), ("a", "2"), ("a", "3"), ("b", "1"), ("b", "1")] {
        let (permits, limits, before) = (permits.clone(), limits.clone(), permits.queued());
        let claimant = Claimant::of(&principal(tenant, subject));
        let all = permits.clone();
        let waits = tokio::spawn(async move { permits.claim(&claimant, &limits, LONG).await });
        while all.queued() == before {
            tokio::task::yield_now().await;
        }
        waiting.push((format!("{tenant}{subject}"), waits));
    }
    let mut served = Vec::new();
    while !waiting.is_empty() {
        held.take();
        while !waiting.iter().any(|(_, waits)| waits.is_finished()) {
            tokio::task::yield_now().await;
        }
        let at = waiting.iter().position(|(_, waits)| waits.is_finished()).unwrap();
        let (name, waits) = waiting.remove(at);
        held = Some(waits.await.unwrap().unwrap());
        served.push(name);
    }
    assert_eq!(served, ["a1", "b1", "a2", "b1", "a3", "a1"]);
}

/// What the rule says, counted from the claims that are held: how many more a principal may have.
fn may_have(most: usize, holders: &[Principal], one: &Principal, all: &[Principal]) -> usize {
    let is_rival = |other: &&Principal| other.tenant() != one.tenant();
    let is_fellow = |other: &&Principal| other.tenant() == one.tenant() && other != &one;
    let left = most - holders.len();
    let (of_tenant, own) = (
        holders.iter().filter(|holder| holder.tenant() == one.tenant()).count(),
        holders.iter().filter(|holder| *holder == one).count(),
    );
    let may = |own: usize, left: usize| (0..left).take_while(|more| own + more < left - more).count();
    let for_tenant = if all.iter().any(|other| is_rival(&other)) { may(of_tenant, left) } else { left };
    if all.iter().any(|other| is_fellow(&other)) { usize::from(own < for_tenant) } else { for_tenant }
}

proptest! {
    /// Whatever is claimed and given back in whatever order: a claim is granted exactly if the rule says so, one that
    /// holds nothing gets one while any is left for its tenant, and nothing is left behind.
    #[test]
    fn a_claim_is_granted_exactly_if_the_rule_says_so(
        most in 1..12_usize,
        tenants in 1..4_usize,
        subjects in 1..4_usize,
        steps in proptest::collection::vec((any::<bool>(), 0..16_usize), 1..80),
    ) {
        let names = ["t", "u", "v"];
        let all: Vec<_> =
            (0..tenants * subjects).map(|at| principal(names[at % tenants], &(at / tenants).to_string())).collect();
        let permits = Permits::default();
        permits.contend(contenders(&all));
        let limits = [in_use(most)];
        let (mut claims, mut holders) = (Vec::<Claim>::new(), Vec::<Principal>::new());
        for (is_claim, at) in steps {
            if is_claim {
                let one = &all[at % all.len()];
                let expected = may_have(most, &holders, one, &all) > 0;
                let claimed = permits.try_claim(&Claimant::of(one), &limits);
                prop_assert_eq!(claimed.is_ok(), expected, "{:?} of {:?}", &holders, most);
                let own = holders.iter().filter(|holder| holder.tenant() == one.tenant()).count();
                prop_assert!(claimed.is_ok() || own > 0 || holders.len() == most, "one fits while any is left");
                if let Ok(claim) = claimed {
                    claims.push(claim);
                    holders.push(one.clone());
                }
            } else if !claims.is_empty() {
                drop(claims.swap_remove(at % holders.len()));
                holders.swap_remove(at % holders.len());
            }
            prop_assert_eq!(permits.taken(&limits[0].0), holders.len());
            for one in &all {
                let of_tenant = holders.iter().filter(|holder| holder.tenant() == one.tenant()).count();
                let own = holders.iter().filter(|holder| *holder == one).count();
                prop_assert_eq!(permits.held_by(&limits[0].0, one), (of_tenant, own));
            }
        }
        drop(claims);
        prop_assert!(permits.is_unused());
    }
}
