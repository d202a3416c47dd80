//! Which listing a reader at the start joins: the rules of freshness as pure functions.

use std::time::Duration;

use crate::model::Freshness;

/// A listing of the query that is kept from its start, as far as the choice depends on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// Whether new readers may join it at all. One whose walk failed for now is open: its pages are there.
    pub(super) is_open: bool,
    /// The time since its first fetch was sent; none where that is still to come.
    pub(super) age: Option<Duration>,
    /// How long it is fresh for readers who do not say.
    pub(super) ttl: Duration,
    /// Whether its walk goes on right now.
    pub(super) is_advancing: bool,
    /// How much of it is there.
    pub(super) extent: Extent,
}

/// The part of a listing that is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Not even its first page.
    Nothing,
    /// Its first page.
    Beginning,
    /// All of it, if that is only that there are no nodes.
    Everything,
}

/// The listing that a reader is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// Join the candidate at this index.
    Join(usize),
    /// Join the candidate at this index, which is stale, and let a new walk replace it in the background.
    JoinAndRefresh(usize),
    /// Start a walk, or take up the one at this index, which failed or was left before its first page came; it is
    /// forced where the reader's `max_age` refused what is fresh to others.
    Start { left: Option<usize>, is_forced: bool },
}

/// Chooses among the candidates, newest first. `max_stale` is what holds for readers who do not say.
///
/// A walk that advances is joined by readers without a `max_age` whatever its age: one longer than its TTL would be
/// overtaken by copies of itself for ever. While upstream `is_held` off no walk advances in earnest, and the age of a
/// walk is bounded as that of any other listing: it would grow for as long as upstream throttles. Stale data is given
/// while fresher is on its way, or sent for, but never to a reader who demands to ask now. While upstream `is_held`
/// off, pages that are missing stay missing: a complete listing within the reader's bounds goes before a newer one that
/// would fail the reader half-way.
pub(super) fn choose(candidates: &[Candidate], freshness: Freshness, max_stale: Duration, is_held: bool) -> Choice {
    let is_joined = |candidate: &Candidate| {
        let is_carried_on = freshness.max_age.is_none() && candidate.is_advancing && candidate.is_open && !is_held;
        candidate.is_fresh(freshness.max_age) || is_carried_on
    };
    let is_left = |candidate: &Candidate| !candidate.is_answering() && !candidate.is_advancing;
    let joined = candidates.iter().position(|candidate| is_joined(candidate) && !is_left(candidate));
    let stale = match freshness.max_age {
        Some(Duration::ZERO) => None,
        _ => usable(candidates, freshness, max_stale, is_held),
    };
    let candidate = joined.and_then(|joined| candidates.get(joined));
    let is_complete = |index: usize| candidates.get(index).is_some_and(Candidate::is_complete);
    match (joined, stale) {
        (_, Some(complete)) if is_held && is_complete(complete) => Choice::Join(complete),
        (Some(joined), _) if candidate.is_some_and(Candidate::is_answering) => Choice::Join(joined),
        (Some(_), Some(stale)) if candidate.is_some_and(|candidate| candidate.is_advancing) => Choice::Join(stale),
        (_, Some(stale)) => Choice::JoinAndRefresh(stale),
        (Some(joined), None) => Choice::Join(joined),
        (None, None) => Choice::Start {
            left: candidates.iter().position(is_joined),
            is_forced: candidates.iter().any(|candidate| candidate.is_fresh(None) && !is_left(candidate)),
        },
    }
}

/// Returns the newest candidate that has an answer within the reader's bounds, stale or not; while upstream `is_held`
/// off, the newest complete one if there is any.
pub(super) fn usable(
    candidates: &[Candidate],
    freshness: Freshness,
    max_stale: Duration,
    is_held: bool,
) -> Option<usize> {
    let max_stale = freshness.max_stale.unwrap_or(max_stale);
    let is_usable = |candidate: &Candidate| {
        let bound = freshness.max_age.unwrap_or(candidate.ttl).saturating_add(max_stale);
        candidate.is_open && candidate.is_answering() && candidate.age.is_some_and(|age| age < bound)
    };
    let complete = candidates.iter().position(|candidate| candidate.is_complete() && is_usable(candidate));
    complete.filter(|_| is_held).or_else(|| candidates.iter().position(is_usable))
}

impl Candidate {
    pub(super) fn is_answering(&self) -> bool {
        self.extent != Extent::Nothing
    }

    pub(super) fn is_complete(&self) -> bool {
        self.extent == Extent::Everything
    }

    /// A fetch that is still to be sent is fresh for everyone.
    fn is_fresh(&self, max_age: Option<Duration>) -> bool {
        self.is_open && self.age.is_none_or(|age| age < max_age.unwrap_or(self.ttl))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_mins(1);

    fn at(age: u64) -> Candidate {
        let age = Some(Duration::from_secs(age));
        Candidate { is_open: true, age, ttl: TTL, is_advancing: false, extent: Extent::Everything }
    }

    fn waiting(age: u64) -> Candidate {
        Candidate { is_advancing: true, extent: Extent::Nothing, ..at(age) }
    }

    fn paused(age: u64) -> Candidate {
        Candidate { extent: Extent::Beginning, ..at(age) }
    }

    fn unsent() -> Candidate {
        Candidate { age: None, ..waiting(0) }
    }

    fn freshness(max_age: Option<u64>, max_stale: Option<u64>) -> Freshness {
        let of = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        Freshness { max_age: of(max_age), max_stale: of(max_stale) }
    }

    fn chosen(candidates: &[Candidate], max_age: Option<u64>, max_stale: Option<u64>) -> Choice {
        choose(candidates, freshness(max_age, max_stale), Duration::ZERO, false)
    }

    fn chosen_while_held(candidates: &[Candidate], max_age: Option<u64>, max_stale: Option<u64>) -> Choice {
        choose(candidates, freshness(max_age, max_stale), Duration::ZERO, true)
    }

    const START: Choice = Choice::Start { left: None, is_forced: false };
    const FORCED: Choice = Choice::Start { left: None, is_forced: true };

    #[test]
    fn a_listing_is_joined_while_it_is_fresh_enough_for_the_reader() {
        assert_eq!(chosen(&[], None, None), START);
        assert_eq!(chosen(&[at(59)], None, None), Choice::Join(0));
        assert_eq!(chosen(&[at(60)], None, None), START);
        assert_eq!(chosen(&[at(60)], Some(600), None), Choice::Join(0), "longer than the TTL, too");
        assert_eq!(chosen(&[at(30)], Some(20), None), FORCED);
        assert_eq!(chosen(&[at(90)], Some(20), None), START, "it was not fresh to anyone");
    }

    #[test]
    fn a_closed_listing_is_nothing_to_anyone() {
        let closed = Candidate { is_open: false, is_advancing: true, ..at(1) };
        assert_eq!(chosen(&[closed], None, Some(600)), START);
        assert_eq!(chosen(&[closed, at(80)], None, Some(30)), Choice::JoinAndRefresh(1));
        assert_eq!(usable(&[closed], freshness(None, Some(600)), Duration::ZERO, true), None);
    }

    #[test]
    fn who_asks_now_joins_only_a_fetch_that_is_still_to_be_sent() {
        assert_eq!(chosen(&[at(0)], Some(0), None), FORCED);
        assert_eq!(chosen(&[waiting(0)], Some(0), Some(600)), FORCED);
        assert_eq!(chosen(&[unsent(), waiting(0)], Some(0), Some(600)), Choice::Join(0));
    }

    #[test]
    fn an_advancing_walk_is_joined_whatever_its_age_unless_the_reader_says_an_age() {
        let advancing = Candidate { is_advancing: true, ..at(500) };
        assert_eq!(chosen(&[advancing], None, None), Choice::Join(0));
        assert_eq!(chosen(&[advancing], Some(60), None), START);
        assert_eq!(chosen(&[waiting(1), advancing], None, None), Choice::Join(0), "the newest first");
    }

    #[test]
    fn while_upstream_is_held_off_an_advancing_walk_is_joined_only_within_the_bounds_of_stale_data() {
        let advancing = |age| Candidate { is_advancing: true, ..paused(age) };
        assert_eq!(chosen_while_held(&[advancing(59)], None, None), Choice::Join(0));
        assert_eq!(chosen_while_held(&[advancing(60)], None, None), START);
        assert_eq!(chosen_while_held(&[advancing(89)], None, Some(30)), Choice::JoinAndRefresh(0));
        assert_eq!(chosen_while_held(&[advancing(90)], None, Some(30)), START);
    }

    #[test]
    fn stale_data_is_given_within_its_bound_while_it_is_replaced() {
        assert_eq!(chosen(&[at(80)], None, Some(30)), Choice::JoinAndRefresh(0));
        assert_eq!(chosen(&[at(90)], None, Some(30)), START);
        assert_eq!(chosen(&[at(25)], Some(20), Some(30)), Choice::JoinAndRefresh(0));
        let by_default = choose(&[at(80)], Freshness::default(), Duration::from_secs(30), false);
        assert_eq!(by_default, Choice::JoinAndRefresh(0));
        assert_eq!(chosen(&[waiting(1), at(80)], None, Some(30)), Choice::Join(1), "nobody waits for the refresh");
        let left = Candidate { is_advancing: false, ..unsent() };
        assert_eq!(chosen(&[left, at(80)], None, Some(30)), Choice::JoinAndRefresh(1), "nobody is at it");
        assert_eq!(chosen(&[left, at(80)], None, None), Choice::Start { left: Some(0), is_forced: false });
        assert_eq!(chosen(&[left, at(1)], Some(0), None), Choice::Start { left: Some(0), is_forced: true });
        assert_eq!(chosen(&[left, at(40)], None, None), Choice::Join(1), "what is fresh needs no refresh");
        assert_eq!(chosen(&[waiting(1), at(80)], None, None), Choice::Join(0));
        assert_eq!(chosen(&[at(80)], Some(0), Some(600)), START, "who asks now waits for the answer");
    }

    #[test]
    fn while_upstream_is_held_off_what_is_there_is_given_and_what_is_complete_first() {
        assert_eq!(chosen_while_held(&[paused(1)], None, None), Choice::Join(0), "its pages are there");
        assert_eq!(chosen_while_held(&[paused(1), at(40)], None, None), Choice::Join(1));
        assert_eq!(chosen(&[paused(1), at(40)], None, None), Choice::Join(0), "it may be completed now");
        assert_eq!(chosen_while_held(&[paused(1), at(80)], None, Some(30)), Choice::Join(1), "stale, too");
        assert_eq!(chosen_while_held(&[paused(1), at(80)], None, None), Choice::Join(0), "where that is accepted");
        assert_eq!(chosen_while_held(&[paused(70), paused(80)], None, Some(30)), Choice::JoinAndRefresh(0));
        assert_eq!(chosen_while_held(&[paused(1), at(40)], Some(0), Some(600)), FORCED, "who asks now gets the error");
        assert_eq!(chosen_while_held(&[paused(70)], None, None), START);
    }

    #[test]
    fn what_is_usable_in_place_of_an_error_has_an_answer_within_the_bounds() {
        let of = |candidates: &[Candidate], max_age, max_stale| {
            usable(candidates, freshness(max_age, max_stale), Duration::ZERO, true)
        };
        assert_eq!(of(&[unsent(), waiting(1), at(80), at(85)], None, Some(30)), Some(2));
        assert_eq!(of(&[at(80)], Some(0), Some(100)), Some(0), "even for who asked now");
        assert_eq!(of(&[at(80)], Some(0), None), None);
        assert_eq!(of(&[at(80)], None, Some(u64::MAX)), Some(0));
        assert_eq!(of(&[paused(70), at(80)], None, Some(30)), Some(1), "the newest that is complete");
        assert_eq!(of(&[paused(70), at(90)], None, Some(30)), Some(0), "or else the newest");
    }
}
