//! Which faults a planted bug needs: it may bias what is drawn so that it is found in few seeds. A bug that no bias
//! helps is left to chance.

use polder_consensus::Mutation;
use polder_types::FaultModel;

use crate::swarm::{Model, Options};

/// Biases the options of a seed for a planted bug, within the fault model asked for.
pub fn bias(options: &mut Options, mutation: Mutation, model: Option<Model>) {
    // Two of three seeds are biased: what the bias hides is found by the third.
    if options.seed % 3 == 2 {
        return;
    }
    match mutation {
        Mutation::ViewChangeWithoutAccepted | Mutation::AcceptNotDurable => {
            crash_model(options, model);
            many_view_changes(options);
        }
        Mutation::EnteredViewNotDurable
        | Mutation::PreparedNotDurable
        | Mutation::NewViewNotDurableNoAbdication
        | Mutation::ScNotDurable
        | Mutation::ViewZeroNotRecorded
        | Mutation::EntriesPerReplica
        | Mutation::MostCommonInsteadOfHighest
        | Mutation::VoteAfterViewChange
        | Mutation::BackupsDoNotRecompute
        | Mutation::NewViewJudgedByHeld => many_view_changes(options),
        Mutation::StatusSilentWhenIdle | Mutation::SuspectSentOnce | Mutation::ProposalsNotFetched => {
            options.network.loss_per_mille = 200;
        }
        _ => {}
    }
}

fn crash_model(options: &mut Options, model: Option<Model>) {
    if model.is_none() {
        options.replicas = 3;
        options.fault_model = FaultModel::Crash;
        options.liars = 0;
    }
}

/// Short time-outs, slow links, splits and crashes: views change all the time.
fn many_view_changes(options: &mut Options) {
    let constants = &mut options.constants;
    constants.timeout_first_ms = 100;
    constants.timeout_max_ms = 800;
    constants.status_period_ms = constants.status_period_ms.min(50);
    options.faults.split_gap_ms = 300;
    options.faults.split_ms = 200;
    options.faults.crash_gap_ms = 200;
    options.faults.down_ms = 50;
    options.liars = options.liars.min(1);
}
