//! Delay, loss, repetition, splits and one-way cuts between real processes.

use std::time::Instant;

use polder_sim_tests::random::{Purpose, Random};

use crate::cluster::{Cluster, REPLICAS};
use crate::load::Load;
use crate::proxy::{CLIENTS, Network, Weather};
use crate::{chaos, seed};

const ROUGH: Weather =
    Weather { delay_ms: 20, lost_per_mille: 30, repeated_per_mille: 30, hurried_per_mille: 30, ..Weather::FAIR };
/// What no path on the internet undercuts, by QUIC's own rules.
const NARROW: Weather = Weather { bytes_max: 1_200, ..Weather::FAIR };
const FAULTS: usize = 7;

#[test]
fn the_network_is_rough_split_and_cut_one_way_and_heals() {
    let mut cluster = Cluster::short_intervals_unstarted("network");
    let network = Network::between(&mut cluster, seed());
    let cluster = cluster.started();
    let load = Load::start_by(&cluster, &network.client_file, 9);
    let mut random = Random::new(seed(), Purpose::Faults);
    let (start, duration) = (Instant::now(), chaos(0));
    let mut round = 0;
    while round < FAULTS || start.elapsed() < duration {
        let fault = if round < FAULTS { round } else { random.below(FAULTS) };
        let leader = cluster.leader();
        let others: Vec<usize> = (0..REPLICAS).filter(|replica| *replica != leader).collect();
        eprintln!("round {round}: fault {fault}, the leader is {leader}");
        let can_go_on = match fault {
            0 => {
                network.everywhere(ROUGH);
                true
            }
            1 => {
                network.everywhere(NARROW);
                true
            }
            // The leader is alone.
            2 => {
                network.between_them(&[leader], &others, Weather::CUT);
                true
            }
            // It is heard and hears nobody, and the other way round.
            3 => {
                network.set(&others, &[leader], Weather::CUT);
                true
            }
            4 => {
                network.set(&[leader], &others, Weather::CUT);
                true
            }
            // Clients do not reach it, the others do.
            5 => {
                network.between_them(&[CLIENTS], &[leader], Weather::CUT);
                true
            }
            // Two and two.
            _ => {
                network.between_them(&[leader, others[0]], &others[1..], Weather::CUT);
                false
            }
        };
        if can_go_on {
            load.wait_for_answers(30);
        } else {
            cluster.wait("two that see no quorum", |status| status.iter().any(|row| row["ready"] == false));
        }
        network.everywhere(Weather::FAIR);
        load.wait_for_answers(30);
        cluster.wait("a cluster that is well", |status| status.iter().all(|row| row["ready"] == true));
        round += 1;
    }
    load.finish(&cluster);
}
