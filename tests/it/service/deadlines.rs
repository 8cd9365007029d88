//! Several deadlines of one protocol, compared with a model.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use serveloop::service::Deadlines;

use crate::support::cases;

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u64),
    Cancel(u8),
    Take(u64),
    Clear,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Few keys and few moments, so that they meet.
    let (key, moment) = (0..6_u8, 0..8_u64);
    let step = prop_oneof![
        6 => (key.clone(), moment.clone()).prop_map(|(key, at)| Step::Set(key, at)),
        3 => key.prop_map(Step::Cancel),
        4 => moment.prop_map(Step::Take),
        1 => Just(Step::Clear),
    ];
    vec(step, 0..80)
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn deadlines_are_a_map_in_the_order_of_time(steps in steps()) {
        let start = Instant::now();
        let moment = |at: u64| start + Duration::from_secs(at);
        let mut deadlines = Deadlines::new();
        // By its key, the moment of each and when it was set.
        let mut model: BTreeMap<u8, (u64, usize)> = BTreeMap::new();

        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Set(key, at) => {
                    let before = model.insert(key, (at, number));
                    let expected = before.map(|(at, _)| moment(at));
                    prop_assert_eq!(deadlines.set(key, moment(at)), expected);
                }
                Step::Cancel(key) => {
                    let expected = model.remove(&key).map(|(at, _)| moment(at));
                    prop_assert_eq!(deadlines.cancel(&key), expected);
                }
                Step::Take(now) => {
                    let first = model.iter().min_by_key(|(_, place)| **place);
                    let due = first.filter(|(_, (at, _))| *at <= now).map(|(key, _)| *key);
                    due.and_then(|key| model.remove(&key));
                    prop_assert_eq!(deadlines.take_due(moment(now)), due);
                }
                Step::Clear => {
                    model.clear();
                    deadlines.clear();
                }
            }

            let mut order: Vec<_> = model.iter().map(|(key, place)| (*place, *key)).collect();
            order.sort_unstable();
            let expected = order.iter().map(|((at, _), key)| (*key, moment(*at)));
            prop_assert!(deadlines.iter().map(|(key, at)| (*key, at)).eq(expected));
            let first = order.first().map(|((at, _), _)| moment(*at));
            prop_assert_eq!(deadlines.poll_timeout(), first);
            prop_assert_eq!((deadlines.len(), deadlines.is_empty()), (order.len(), order.is_empty()));
            for key in 0..6 {
                let expected = model.get(&key).map(|(at, _)| moment(*at));
                prop_assert_eq!(deadlines.get(&key), expected);
            }
        }
    }
}
