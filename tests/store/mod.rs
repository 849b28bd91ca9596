//! The conformance suite: every behaviour that the traits in `store` promise, one function each, run for every
//! implementation. A new implementation adds one line to the end of the list; a function that the list forgets is dead
//! code, which the compiler reports.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod checkpoints;
mod claims;
mod conversations;
mod feedback;
mod histories;
mod life;
mod migration;
mod ownership;
mod pgbouncer;
mod postgres;
mod retention;
mod runs;
mod sqlite;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use holdfast::domain::{
    Answer, ChannelBlob, ChannelValue, Checkpoint, ErrorKind, InstanceId, NewCheckpoint, Run, RunError, RunEvent,
    RunId, ThreadKey, new_checkpoint_id,
};
use holdfast::store::{
    CheckpointStore, Claim, ClaimRequest, Ending, Idempotency, NewRun, QueueLimits, StepRecord, Store, Submission,
};
use serde_json::{Value, json};

macro_rules! conformance {
    ($($subject:ident: $($behaviour:ident)+;)+) => {
        /// Runs every behaviour against a store of this backend, each against one of its own.
        macro_rules! every_behaviour {
            ($backend:ident) => {
                mod $backend {
                    $(mod $subject {
                        $(#[test]
                        fn $behaviour() {
                            // Nothing to open: what the backend needs is not installed.
                            let Some(opened) = crate::store::$backend::open() else { return };
                            crate::store::$subject::$behaviour((&opened).into());
                        })+
                    })+
                }
            };
        }
    };
}

conformance! {
    runs:
        a_submitted_run_is_stored_with_its_event
        submitting_again_with_the_same_id_stores_nothing_more
        a_run_submitted_to_an_idle_worker_is_claimed_at_once
        an_idle_worker_takes_nobodys_turn
        a_user_never_sees_a_run_of_another
        the_same_key_with_the_same_body_gives_the_same_run
        the_same_key_with_another_body_stores_nothing
        the_same_key_of_another_user_is_another_submission
        twenty_identical_submissions_at_once_give_one_run
        a_full_queue_refuses_and_running_runs_are_not_counted
        a_users_share_of_the_queue_is_their_own
        a_repeated_submission_is_answered_although_the_queue_is_full
        runs_are_listed_newest_first_without_answers
        a_listing_by_status_holds_that_status_only
        pages_of_runs_are_complete_and_without_repeats_while_runs_are_added
        a_queued_run_knows_its_place_and_what_it_waits_for
        runs_are_counted_where_they_are
        progress_is_told_of_many_runs_whoevers_they_are
        a_queued_run_is_cancelled_at_once
        a_running_run_is_cancelling_until_its_worker_stops
        a_run_that_ended_otherwise_is_not_cancelled
        an_unknown_run_is_not_cancelled
        events_go_on_after_a_sequence_number_up_to_the_limit;
    claims:
        a_claim_starts_the_run
        an_empty_queue_gives_no_claim
        claiming_again_with_the_same_token_gives_the_same_run
        the_user_with_the_fewest_running_runs_goes_first
        among_equals_the_oldest_run_goes_first
        a_thread_is_worked_on_one_run_at_a_time_and_in_order
        concurrent_claimers_never_get_the_same_run
        a_renewed_claim_is_not_rescued
        renewing_reports_who_was_asked_to_cancel_and_who_lost_the_claim
        a_claim_that_nobody_names_expires_and_is_rescued
        only_an_expired_claim_is_rescued
        a_dead_instance_loses_its_own_claims_only
        a_lost_claim_writes_nothing
        a_rescue_charges_an_attempt_only_if_nothing_was_stored
        a_run_is_given_up_past_its_last_attempt
        a_rescued_run_that_was_being_cancelled_ends_cancelled
        a_drained_run_is_not_charged_an_attempt
        a_drained_run_that_was_being_cancelled_ends_cancelled
        a_step_is_stored_with_its_checkpoint_and_events
        a_step_renews_the_claim
        a_step_stored_again_is_stored_once
        a_step_reports_the_wish_to_cancel
        an_answer_is_stored_with_the_last_step
        finishing_again_gives_the_run_as_it_was_left
        a_run_without_an_answer_says_why
        a_run_being_cancelled_ends_cancelled_whatever_its_worker_came_to
        events_are_gap_free_when_many_write_at_once
        a_run_resumed_later_was_still_started_when_first_claimed;
    checkpoints:
        a_checkpoint_is_read_back_with_its_channels
        the_latest_checkpoint_is_that_with_the_largest_id
        a_checkpoint_of_another_thread_or_namespace_is_not_found
        a_channel_comes_at_the_version_that_the_checkpoint_names
        a_channel_marked_empty_has_no_value
        storing_a_checkpoint_again_overwrites_the_snapshot_only
        a_channel_version_is_never_overwritten
        writes_come_back_in_order_of_task_and_index
        an_ordinary_write_keeps_what_is_there_and_a_special_one_does_not
        writes_belong_to_one_checkpoint
        a_list_is_newest_first_and_goes_on_before_an_id
        a_list_is_filtered_by_what_the_metadata_contains
        a_list_is_of_one_namespace_or_of_all
        a_bare_list_is_of_snapshots_without_values
        the_checkpoints_of_a_thread_are_counted_in_all_namespaces
        the_last_of_several_writes_to_a_special_channel_stays
        writes_need_a_checkpoint_to_come_after
        deleting_a_thread_of_checkpoints_removes_exactly_it;
    conversations:
        threads_are_listed_by_their_latest_run
        pages_of_threads_are_complete_and_without_repeats_while_threads_are_added
        two_users_with_the_same_thread_id_never_meet
        a_thread_gives_its_newest_runs_oldest_first
        a_threads_older_runs_are_found_from_page_to_page
        a_threads_runs_and_its_history_end_where_their_texts_are_enough
        the_history_of_a_run_is_what_succeeded_before_it
        deleting_a_thread_removes_exactly_it
        a_thread_with_open_runs_is_not_deleted
        an_unknown_thread_is_not_deleted
        a_deleted_thread_may_be_begun_again;
    feedback:
        a_sentiment_is_kept_until_it_is_taken_back
        what_is_said_of_a_run_leaves_what_was_said_otherwise
        a_thread_tells_its_newest_sentiments_oldest_first
        nobody_judges_anothers_run
        what_was_said_goes_with_its_thread
        the_latest_runs_of_all_threads_come_with_their_sentiments
        the_latest_runs_end_where_their_texts_are_enough;
    retention:
        what_ended_long_enough_ago_goes_with_everything_of_its_own
        what_was_said_of_a_run_goes_with_it
        what_is_younger_or_has_not_ended_stays
        a_batch_is_those_that_ended_first
        a_thread_goes_with_its_last_run_and_with_what_others_added
        a_thread_that_stays_keeps_its_title_and_its_order
        a_run_that_ended_before_an_earlier_one_of_its_thread_takes_nothing_with_it
        checkpoints_go_up_to_the_last_one_of_the_run_in_every_namespace
        the_newest_checkpoint_of_a_namespace_stays_with_its_thread
        a_checkpoint_of_a_run_that_stays_stays_wherever_it_sorts
        a_blob_stays_as_long_as_any_checkpoint_names_it
        a_run_goes_on_from_its_checkpoint_after_earlier_ones_are_gone
        an_idempotency_key_lives_as_long_as_its_run;
    histories:
        whatever_happens_in_whatever_order_every_promise_holds;
    life:
        a_probe_names_the_backend
        the_pools_name_what_is_going_on
        a_closed_store_refuses_at_once_and_may_be_closed_again;
}

mod every {
    every_behaviour!(sqlite);
    every_behaviour!(postgres);
    every_behaviour!(pgbouncer);
}

/// A store of its own for one test, and what has to outlive it.
struct Opened {
    store: Box<dyn Store>,
    /// Has a run have ended so much earlier, past the store.
    age: Box<dyn Fn(RunId, Duration)>,
    _kept: Box<dyn std::any::Any>,
}

impl<'a> From<&'a Opened> for &'a dyn Store {
    fn from(opened: &'a Opened) -> Self {
        &*opened.store
    }
}

impl<'a> From<&'a Opened> for &'a dyn CheckpointStore {
    fn from(opened: &'a Opened) -> Self {
        &*opened.store
    }
}

/// Longer than any test.
const LEASE: Duration = Duration::from_mins(1);
/// A claim for this long has expired as soon as it is made: nobody has to wait for it.
const NO_LEASE: Duration = Duration::ZERO;
const ATTEMPTS_MAX: u32 = 5;
const NO_LIMITS: QueueLimits = QueueLimits { queued_max: u64::MAX, queued_per_user_max: u64::MAX };

fn new_run(owner: &str, thread_id: &str) -> NewRun {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    NewRun {
        id: RunId::new(),
        owner: owner.into(),
        thread_id: thread_id.into(),
        prompt: format!("question {}", NUMBER.fetch_add(1, Ordering::Relaxed)),
        engine: "analyst".into(),
        idempotency: None,
    }
}

fn keyed(owner: &str, key: &str, body: u8) -> NewRun {
    let idempotency = Idempotency { key: key.into(), fingerprint: [body; 32] };
    NewRun { idempotency: Some(idempotency), ..new_run(owner, "thread") }
}

fn submit(store: &dyn Store, owner: &str, thread_id: &str) -> Run {
    match store.submit(&new_run(owner, thread_id), NO_LIMITS, None).unwrap() {
        Submission::Accepted(run) => run,
        other => panic!("not accepted: {other:?}"),
    }
}

fn claim(store: &dyn Store) -> (Claim, Run) {
    store.claim(&ClaimRequest::new(InstanceId::new(), LEASE)).unwrap().expect("a run can be claimed")
}

/// Submits a run into a thread of its own and claims it; there must be no other to claim.
fn submit_and_claim(store: &dyn Store, owner: &str) -> (Claim, Run) {
    let submitted = submit(store, owner, &RunId::new().to_string());
    let (claim, run) = claim(store);
    assert_eq!(run.id, submitted.id);
    (claim, run)
}

fn step(claim: &Claim, number: u32) -> StepRecord {
    let version = format!("{number:032}.1");
    let checkpoint = Checkpoint {
        thread_id: claim.thread_key.to_string(),
        ns: String::new(),
        id: new_checkpoint_id(),
        parent_id: None,
        body: json!({"v": 4, "channel_values": {}, "channel_versions": {"notes": version}}),
        metadata: json!({"source": "loop", "step": number}),
    };
    let blob = ChannelBlob { channel: "notes".into(), version, value: ChannelValue::json(&json!([number])) };
    StepRecord {
        step: number,
        name: format!("step {number}"),
        checkpoint: NewCheckpoint { checkpoint, blobs: vec![blob] },
        spent_ms: u64::from(number) * 100,
    }
}

fn answer(text: &str) -> Answer {
    Answer {
        result: text.into(),
        sql: Some("SELECT 1".into()),
        queries_and_results: vec![("SELECT 1".into(), "1".into())],
        datasets_used: vec!["table".into()],
        iteration: 1,
        columns: vec!["1".into()],
        rows: vec![vec![json!(1), json!(1.5), json!("ä"), Value::Null]],
        row_count: 1,
        truncated: false,
    }
}

fn succeed(store: &dyn Store, claim: &Claim) -> Run {
    store.finish(claim, &Ending::Succeeded(Box::new((step(claim, 1), answer("it is so"))))).unwrap()
}

fn error(kind: ErrorKind) -> RunError {
    RunError { kind, message: "it is not so".into() }
}

fn events(store: &dyn Store, run: &Run) -> Vec<RunEvent> {
    store.events(&run.owner, run.id, 0, 1000).unwrap()
}

fn kinds(events: &[RunEvent]) -> Vec<&'static str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

fn checkpoints_of(store: &dyn Store, key: ThreadKey) -> usize {
    let query = holdfast::domain::ListCheckpoints { thread_id: key.to_string(), ..Default::default() };
    store.list(&query).unwrap().len()
}
