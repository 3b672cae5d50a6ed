//! Every target of `./run fuzz`, for a fixed number of inputs; and that the alarms ring.

use polder_sim_tests::fuzz::counting::{Counting, peak_of};
use polder_sim_tests::fuzz::{decoders, samples, targets};
use polder_sim_tests::random::{Purpose, Random};
use polder_types::NodeFrame;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Set to search longer: so many times the inputs.
const TIMES: &str = "POLDER_FUZZ_TIMES";

/// The targets share the cores.
#[test]
fn no_input_breaks_anything() {
    let times: u64 = std::env::var(TIMES).ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let targets: Vec<_> = targets().collect();
    let failures = std::sync::Mutex::new(Vec::new());
    // Not within the first input's count.
    let _made = samples::get();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(target) = targets.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let started = std::time::Instant::now();
                    let failure = (0..target.iterations * times).find_map(|seed| target.attempt(seed).err());
                    println!("{:<15} {:?}", target.name, started.elapsed());
                    failures.lock().expect("no panic while it is held").extend(failure);
                }
            });
        }
    });
    let failures: Vec<String> = failures.into_inner().expect("no panic").iter().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A decoder without the check that what it takes encodes to the same bytes (R2) is found.
#[test]
fn the_alarm_rings_for_a_decoder_that_takes_two_encodings_of_a_value() {
    let found = (0..2_000).find_map(|seed| {
        let mut random = Random::new(seed, Purpose::Fuzz);
        let samples = samples::get();
        let mut input = polder_types::encode(random.pick(&samples.nodes)?);
        polder_sim_tests::fuzz::mutate::bytes(&mut input, &mut random, &[]);
        let loose = |bytes: &[u8]| match postcard::take_from_bytes::<NodeFrame>(bytes) {
            Ok((frame, [])) => Some(frame),
            _ => None,
        };
        decoders::judge(&input, 1 << 20, loose).err()
    });
    assert!(found.as_ref().is_some_and(|words| words.contains("does not encode to")), "{found:?}");
}

/// So is one that makes room for what is only claimed.
#[test]
fn the_alarm_rings_for_a_decoder_that_makes_room_for_what_is_claimed() {
    let greedy = |bytes: &[u8]| {
        let claimed = polder_types::decode::<u32>(bytes, 5).ok()?;
        drop(vec![0_u8; claimed as usize]);
        None::<u32>
    };
    let verdict = decoders::judge(&[0xff, 0xff, 0xff, 0x1f], 1 << 20, greedy);
    assert!(verdict.is_err_and(|words| words.contains("made it hold")));
}

#[test]
fn allocations_are_counted() {
    let (kept, peak) = peak_of(|| {
        drop(vec![1_u8; 5_000]);
        vec![2_u8; 1_000]
    });
    assert!((5_000..6_500).contains(&peak), "{peak}");
    drop(kept);
    assert_eq!(peak_of(|| ()).1, 0);
}
