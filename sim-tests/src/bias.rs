//! Which faults a planted bug needs: it may bias what is drawn so that it is found in few seeds. A bug that no bias
//! helps is left to chance.

use polder_consensus::Mutation;
use polder_types::FaultModel;

use crate::hazards::Hazards;
use crate::swarm::{Model, Options};

/// Biases the options of a seed for a planted bug, within the fault model asked for.
pub fn bias(options: &mut Options, mutation: Mutation, model: Option<Model>) {
    // Two of three seeds are biased: what the bias hides is found by the third.
    if options.seed % 3 == 2 {
        return;
    }
    match mutation {
        Mutation::ViewChangeWithoutAccepted | Mutation::AcceptNotDurable => {
            cluster(options, model, 3, FaultModel::Crash, 0);
            many_view_changes(options);
        }
        Mutation::MostCommonInsteadOfHighest => {
            cluster(options, model, 4, FaultModel::Byzantine, 1);
            options.lies = vec!["two-stories"];
            quiet_chaos(options);
            options.chaos_ms = 6_000;
            options.constants.timeout_first_ms = 120;
            options.constants.timeout_max_ms = 480;
            options.is_watched = false;
        }
        Mutation::CommitWithoutBody => {
            cluster(options, model, 4, FaultModel::Byzantine, 1);
            options.lies = vec!["half-prepared"];
            quiet_chaos(options);
            options.is_watched = false;
        }
        Mutation::ScNotDurable => {
            // Who led the last view is down for good, who entered it has restarted since, and a third was cut off.
            cluster(options, model, 3, FaultModel::Crash, 0);
            many_view_changes(options);
            options.faults.stay_down = true;
            options.faults.down_ms = 250;
            options.faults.split_gap_ms = 120;
        }
        Mutation::ImagesBeforeCertification | Mutation::EffectsNotDurable => {
            options.constants.window_slots = 8;
            options.constants.interval_slots = 4;
            options.constants.fresh_slots_max = options.constants.fresh_slots_max.min(8);
            options.constants.turn_cuts = 1;
            options.faults.crash_gap_ms = 150;
            options.faults.down_ms = 30;
        }
        Mutation::EnteredViewNotDurable
        | Mutation::PreparedNotDurable
        | Mutation::NewViewNotDurableNoAbdication
        | Mutation::ViewZeroNotRecorded
        | Mutation::EntriesPerReplica
        | Mutation::VoteAfterViewChange
        | Mutation::BackupsDoNotRecompute => many_view_changes(options),
        Mutation::ProposalsNotFetched => lossy_end(options),
        Mutation::StatusSilentWhenIdle => {
            // All is answered before the healing, which finds somebody far behind whom nobody asks for anything.
            cluster(options, model, 5, FaultModel::Crash, 0);
            lossy_end(options);
            options.chaos_ms = 4_000;
            options.faults.crash_gap_ms = 300;
            options.faults.down_ms = 1_500;
            options.faults.stay_down = false;
            options.faults.leaves_stray = false;
            options.load.clients = 2;
            options.load.requests = 12;
            options.load.is_endless = false;
            options.load.think_ms = 40;
            options.load.retry_ms = 2_000;
            options.load.mischief_gap_ms = 0;
        }
        Mutation::SuspectSentOnce => {
            cluster(options, model, 3, FaultModel::Crash, 0);
            lossy_end(options);
            // The leader is often the one that is down for good when the others are healed.
            options.network.loss_per_mille = 400;
            options.chaos_ms = 3_000;
            options.faults.crash_gap_ms = 200;
            options.faults.down_ms = 5_000;
            options.faults.stay_down = true;
        }
        Mutation::KUnbounded => {
            many_view_changes(options);
            options.constants.timeout_max_ms = 2 * options.constants.timeout_first_ms;
        }
        Mutation::JoinAtWeak => {
            cluster(options, model, 3, FaultModel::Crash, 0);
            watched(options);
            options.faults.leaves_stray = true;
        }
        Mutation::DeadlinesForTheInexecutable => {
            watched(options);
            // Only a correct leader is watched.
            options.liars = 0;
            // Rare enough for a calm moment, from which on they are watched.
            options.load.mischief_gap_ms = 50;
        }
        Mutation::NewViewJudgedByHeld => {
            // Two of seven lie, so that hardly any NEW-VIEW does without a VIEW-CHANGE of theirs.
            cluster(options, model, 7, FaultModel::Byzantine, 2);
            options.lies = vec!["silent-leader", "hidden-entries", "suspicion"];
            many_view_changes(options);
        }
        Mutation::GapCountsAsLag => {
            cluster(options, model, 4, FaultModel::Byzantine, 1);
            options.lies = vec!["silent-leader"];
            quiet_chaos(options);
        }
        Mutation::TimersRestart => {
            cluster(options, model, 4, FaultModel::Byzantine, 1);
            options.lies = vec!["starving-leader"];
            options.load.is_endless = true;
            options.load.in_flight = 2;
            options.load.think_ms = 5;
            quiet_chaos(options);
        }
        Mutation::BodiesOfAllViewsKept => {
            cluster(options, model, 4, FaultModel::Byzantine, 1);
            options.lies = vec!["lost-votes", "suspicion"];
            quiet_chaos(options);
            options.chaos_ms = 5_000;
            options.constants.window_slots = 8;
            options.constants.interval_slots = 4;
            options.constants.fresh_slots_max = 8;
            options.constants.timeout_first_ms = 120;
            options.constants.timeout_max_ms = 240;
            options.pipeline_slots = 4;
            options.load.clients = 5;
            options.load.in_flight = 4;
            options.load.requests = 80;
            options.load.think_ms = 5;
            options.is_watched = false;
        }
        _ => {}
    }
}

fn cluster(options: &mut Options, model: Option<Model>, replicas: usize, fault_model: FaultModel, liars: usize) {
    if model.is_none() {
        options.replicas = replicas;
        options.fault_model = fault_model;
        options.liars = liars;
    }
}

/// Short time-outs, slow links, splits and crashes: views change all the time.
fn many_view_changes(options: &mut Options) {
    let constants = &mut options.constants;
    constants.timeout_first_ms = 100;
    constants.timeout_max_ms = 800;
    constants.status_period_ms = constants.status_period_ms.min(50);
    options.faults.split_gap_ms = 200;
    options.faults.split_ms = 250;
    options.faults.crash_gap_ms = 200;
    options.faults.down_ms = 50;
    options.is_watched = false;
}

/// Nothing fails but the network after the healing, which loses much of what is sent for the first time.
fn lossy_end(options: &mut Options) {
    quiet_chaos(options);
    options.network.healed_loss_per_mille = 400;
    options.constants.timeout_max_ms = options.constants.timeout_max_ms.max(24 * options.constants.status_period_ms);
    options.load.in_flight = 1;
    options.is_watched = false;
}

/// The end of the run is watched for views that change for no reason.
fn watched(options: &mut Options) {
    quiet_chaos(options);
    options.is_watched = true;
    options.network.healed_loss_per_mille = 0;
    options.disk.sync_us_mean = 500;
    options.disk.digest_us_max = 5_000;
    options.constants.timeout_first_ms = 400;
    options.constants.timeout_max_ms = 1_600;
}

/// Chaos is short, and nothing in it crashes, stops or splits.
fn quiet_chaos(options: &mut Options) {
    options.chaos_ms = 800;
    options.faults.crash_gap_ms = 0;
    options.faults.pause_gap_ms = 0;
    options.faults.split_gap_ms = 0;
    options.faults.jump_gap_ms = 0;
    options.load.abandon_per_mille = 0;
    options.load.unread_per_mille = 0;
    options.hazards = Hazards::default();
}
