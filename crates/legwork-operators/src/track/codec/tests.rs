//! What is written is read, whatever it is.

use proptest::prelude::*;

use super::*;

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), (-1_800_000_000i64..1_800_000_000).prop_map(|n| n as f64 / 1e7), Just(0.0), Just(-0.0)]
}

fn small() -> impl Strategy<Value = f32> {
    prop_oneof![any::<f32>(), (0u16..2000).prop_map(|n| f32::from(n) / 8.0), Just(f32::NAN)]
}

prop_compose! {
    fn ping()(time_us in any::<i64>(), sent in proptest::option::of(any::<i64>()), lat in number(), lon in number(),
              odometer_m in number(), accuracy_m in small(), speed_mps in small(), rep in 0u32..3, mock in any::<bool>()) -> Ping {
        Ping { time_us, sent_us: sent.unwrap_or(NO_TIME), lat, lon, odometer_m, accuracy_m, speed_mps, battery_pct: f32::NAN, rep, mock }
    }
}

/// All of a ping; any NaN is one missing value.
fn content(ping: &Ping) -> impl PartialEq + std::fmt::Debug + use<> {
    let f32s = |v: f32| (!v.is_nan()).then_some(v.to_bits());
    let f64s = |v: f64| (!v.is_nan()).then_some(v.to_bits());
    (
        (ping.time_us, ping.sent_us, ping.lat.to_bits(), ping.lon.to_bits(), f64s(ping.odometer_m)),
        (f32s(ping.accuracy_m), f32s(ping.speed_mps), ping.rep, ping.mock),
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(pings in proptest::collection::vec(ping(), 0..40)) {
        let mut writer = Writer::new();
        pings.iter().for_each(|ping| writer.push(ping));
        let read: Vec<_> = Reader::new(writer.bytes(), pings.len() as u32).map(|ping| content(&ping)).collect();
        prop_assert_eq!(read, pings.iter().map(content).collect::<Vec<_>>());
    }

    #[test]
    fn one_that_goes_on_writes_the_same(mut pings in proptest::collection::vec(ping(), 0..40), cut in 0usize..40) {
        pings.iter_mut().for_each(|ping| ping.time_us >>= 10);
        pings.sort_by_key(|ping| ping.time_us);
        pings.dedup_by_key(|ping| ping.time_us);
        let (mut whole, mut first) = (Writer::new(), Writer::new());
        pings.iter().for_each(|ping| whole.push(ping));
        pings.iter().take(cut).for_each(|ping| first.push(ping));
        let again = Writer::after(&first.bytes(), cut.min(pings.len()) as u32).unwrap();
        let resumed = first.end().map(|end| Writer::resume(&first.bytes(), cut.min(pings.len()) as u32, end).unwrap());
        for mut again in [Some(again), resumed].into_iter().flatten() {
            pings.iter().skip(cut).for_each(|ping| again.push(ping));
            prop_assert_eq!(again.bytes(), whole.bytes());
            prop_assert_eq!(again.first_us(), whole.first_us());
        }
    }

    #[test]
    fn what_is_copied_is_as_if_written(mut pings in proptest::collection::vec(ping(), 0..40), left_out in any::<u64>()) {
        pings.iter_mut().for_each(|ping| ping.time_us >>= 10);
        pings.sort_by_key(|ping| ping.time_us);
        let is_held = |at: usize| left_out >> at & 1 == 0;
        let (mut held, mut whole) = (Writer::new(), Writer::new());
        (0..pings.len()).filter(|at| is_held(*at)).for_each(|at| held.push(&pings[at]));
        pings.iter().for_each(|ping| whole.push(ping));
        let bytes = held.bytes();
        let mut reader = Reader::new(&*bytes, pings.len() as u32);
        let mut copied = Writer::in_one_piece(4);
        for (at, ping) in pings.iter().enumerate() {
            if is_held(at) {
                let before = reader.mark();
                reader.next().unwrap();
                copied.copy(ping, &reader, &before);
            } else {
                copied.push(ping);
            }
        }
        let pieces = copied.clone().into_pieces();
        prop_assert_eq!(&*pieces.bytes(), &*whole.bytes());
        prop_assert_eq!(copied.into_bytes(), whole.into_bytes());
    }

    #[test]
    fn damage_does_not_panic(pings in proptest::collection::vec(ping(), 1..20), at in any::<prop::sample::Index>(), xor in 1u8..=255, n_pings in 0u32..40) {
        let mut writer = Writer::new();
        pings.iter().for_each(|ping| writer.push(ping));
        let mut bytes = writer.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= xor;
        prop_assert_eq!(Reader::new(&*bytes, n_pings).count(), n_pings as usize);
        let _ = Writer::after(&bytes[..at], n_pings);
    }
}
