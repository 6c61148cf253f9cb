//! The limiter alone: what it promises, and that it keeps it whatever its holders do in whatever order.

use std::collections::VecDeque;
use std::pin::Pin;

use futures::FutureExt as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Priority::{Continuing, New};
use super::*;

type Waiting = Pin<Box<dyn Future<Output = Permit>>>;

fn waiting(limiter: &Limiter, priority: Priority) -> Waiting {
    let limiter = limiter.clone();
    let mut waiting: Waiting = Box::pin(async move { limiter.acquire(priority).await });
    assert!(waiting.as_mut().now_or_never().is_none(), "there is no permit");
    waiting
}

fn now(limiter: &Limiter, priority: Priority) -> Option<Permit> {
    limiter.acquire(priority).now_or_never()
}

#[test]
fn there_are_as_many_permits_as_the_limit_says() {
    let limiter = Limiter::new(2);
    let (first, _second) = (now(&limiter, New).expect("the first"), now(&limiter, New).expect("the second"));
    let mut third = waiting(&limiter, New);

    drop(first);

    assert!(now(&limiter, New).is_none(), "it is for who waits");
    assert!(third.as_mut().now_or_never().is_some());
    assert_eq!((limiter.limit(), limiter.held()), (2, 1));
}

#[test]
fn work_that_continues_comes_before_work_that_begins() {
    let limiter = Limiter::new(1);
    let permit = now(&limiter, New).expect("it is free");
    let mut begins = waiting(&limiter, New);
    let permit = permit.keep().expect("work that begins takes it from nobody");
    let mut continues = waiting(&limiter, Continuing);

    assert!(permit.keep().is_none(), "it is wanted");

    assert!(begins.as_mut().now_or_never().is_none());
    let permit = continues.as_mut().now_or_never().expect("it is its turn");
    drop(permit.keep().expect("nobody else continues"));
    assert!(begins.as_mut().now_or_never().is_some());
}

#[test]
fn a_lower_limit_takes_as_many_permits_as_are_too_many() {
    let limiter = Limiter::new(3);
    let held: Vec<Permit> = (0..3).filter_map(|_| now(&limiter, New)).collect();
    limiter.set_limit(1);
    let mut waits = waiting(&limiter, New);

    let kept: Vec<Permit> = held.into_iter().filter_map(Permit::keep).collect();

    assert_eq!((kept.len(), limiter.held()), (1, 1));
    assert!(waits.as_mut().now_or_never().is_none());
    limiter.set_limit(2);
    assert!(waits.as_mut().now_or_never().is_some());
}

#[test]
fn a_permit_on_its_way_to_one_who_gives_up_goes_to_the_next() {
    let limiter = Limiter::new(1);
    let permit = now(&limiter, New).expect("it is free");
    let (gives_up, mut next) = (waiting(&limiter, Continuing), waiting(&limiter, New));
    drop(permit);

    drop(gives_up);

    assert!(next.as_mut().now_or_never().is_some());
}

/// Two rows come back from their tools while one permit is free for a moment: neither may keep it from the other for
/// good.
#[test]
fn two_who_want_the_same_permit_have_it_one_after_the_other() {
    let limiter = Limiter::new(1);
    let permit = now(&limiter, New).expect("it is free");
    let mut rows = [waiting(&limiter, Continuing), waiting(&limiter, Continuing)];
    let mut worker = waiting(&limiter, New);
    drop(permit);

    for row in &mut rows {
        let permit = row.as_mut().now_or_never().expect("it is its turn");
        assert!(worker.as_mut().now_or_never().is_none());
        drop(permit);
    }

    assert!(worker.as_mut().now_or_never().is_some());
}

/// What the limiter should do, in the plainest way: lists of who holds and who waits.
struct Model {
    limiter: Limiter,
    limit: usize,
    held: Vec<Permit>,
    continuing: VecDeque<Waiting>,
    new: VecDeque<Waiting>,
}

impl Model {
    fn step(&mut self, random: &mut StdRng) {
        match random.random_range(0..10) {
            0 => {
                self.limit = random.random_range(0..6);
                self.limiter.set_limit(self.limit);
            }
            1..4 => self.acquire(if random.random() { Continuing } else { New }),
            4..6 => drop(self.any_held(random)),
            6..8 => {
                let is_wanted = self.held.len() > self.limit || !self.continuing.is_empty();
                let Some(permit) = self.any_held(random) else { return };
                let kept = permit.keep();
                assert_eq!(kept.is_none(), is_wanted);
                self.held.extend(kept);
            }
            8 => Self::give_up(&mut self.continuing, random),
            _ => Self::give_up(&mut self.new, random),
        }
        self.settle();
    }

    fn acquire(&mut self, priority: Priority) {
        let limiter = self.limiter.clone();
        let mut waiting: Waiting = Box::pin(async move { limiter.acquire(priority).await });
        match waiting.as_mut().now_or_never() {
            Some(permit) => {
                assert!(self.held.len() < self.limit && self.continuing.is_empty() && self.new.is_empty());
                self.held.push(permit);
            }
            None if priority == Continuing => self.continuing.push_back(waiting),
            None => self.new.push_back(waiting),
        }
    }

    fn any_held(&mut self, random: &mut StdRng) -> Option<Permit> {
        (!self.held.is_empty()).then(|| self.held.swap_remove(random.random_range(0..self.held.len())))
    }

    fn give_up(waiting: &mut VecDeque<Waiting>, random: &mut StdRng) {
        if !waiting.is_empty() {
            drop(waiting.remove(random.random_range(0..waiting.len())));
        }
    }

    /// The permits that are free go to those that have waited longest, and to nobody else.
    fn settle(&mut self) {
        while self.held.len() < self.limit {
            let Some(mut next) = self.continuing.pop_front().or_else(|| self.new.pop_front()) else { break };
            self.held.push(next.as_mut().now_or_never().expect("there is a permit, and it is its turn"));
        }
        for waiting in self.continuing.iter_mut().chain(&mut self.new) {
            assert!(waiting.as_mut().now_or_never().is_none(), "all permits are held");
        }
        assert_eq!(self.limiter.held(), self.held.len());
    }
}

#[test]
fn whatever_its_holders_do_the_limiter_keeps_its_order_and_its_bound() {
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let limiter = Limiter::new(2);
        let mut model =
            Model { limiter, limit: 2, held: Vec::new(), continuing: VecDeque::new(), new: VecDeque::new() };
        for _ in 0..200 {
            model.step(&mut random);
        }
    }
}
