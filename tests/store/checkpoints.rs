use holdfast::domain::{
    ChannelBlob, ChannelValue, Checkpoint, CheckpointRef, CheckpointTuple, ListCheckpoints, NewCheckpoint, PendingWrite,
};
use holdfast::store::{CheckpointRows, CheckpointStore};
use serde_json::{Value, json};

fn snapshot(thread_id: &str, id: &str) -> Checkpoint {
    Checkpoint {
        thread_id: thread_id.into(),
        ns: String::new(),
        id: id.into(),
        parent_id: None,
        body: json!({"v": 4, "id": id, "channel_values": {"inline": "a word"}, "channel_versions": {"inline": "1"}}),
        metadata: json!({"source": "loop", "step": 1}),
    }
}

fn blob(channel: &str, version: &str, value: &Value) -> ChannelBlob {
    ChannelBlob { channel: channel.into(), version: version.into(), value: ChannelValue::json(value) }
}

fn put(store: &dyn CheckpointStore, checkpoint: Checkpoint, blobs: Vec<ChannelBlob>) {
    store.put(&NewCheckpoint { checkpoint, blobs }).unwrap();
}

fn with_versions(thread_id: &str, id: &str, versions: &Value) -> Checkpoint {
    Checkpoint { body: json!({"channel_versions": versions}), ..snapshot(thread_id, id) }
}

fn at(thread_id: &str, id: Option<&str>) -> CheckpointRef {
    CheckpointRef { thread_id: thread_id.into(), ns: String::new(), id: id.map(Into::into) }
}

fn get(store: &dyn CheckpointStore, thread_id: &str, id: Option<&str>) -> CheckpointTuple {
    store.get_tuple(&at(thread_id, id)).unwrap().unwrap()
}

fn write(task_id: &str, idx: i32, value: &str) -> PendingWrite {
    PendingWrite {
        task_id: task_id.into(),
        idx,
        channel: format!("channel of {value}"),
        value: ChannelValue::json(&json!(value)),
        task_path: "~path".into(),
    }
}

fn ids(found: &[CheckpointTuple]) -> Vec<&str> {
    found.iter().map(|tuple| &*tuple.checkpoint.id).collect()
}

pub(super) fn a_checkpoint_is_read_back_with_its_channels(store: &dyn CheckpointStore) {
    let mut checkpoint = with_versions("t", "2", &json!({"notes": "1.5", "count": 7, "inline": "1"}));
    checkpoint.parent_id = Some("1".into());
    let opaque = ChannelValue { kind: "msgpack".into(), bytes: vec![0, 255, 0x81] };
    let count = ChannelBlob { channel: "count".into(), version: "7".into(), value: opaque.clone() };
    put(store, checkpoint.clone(), vec![blob("notes", "1.5", &json!(["ä", null])), count]);

    let tuple = get(store, "t", Some("2"));
    assert_eq!(tuple.checkpoint, checkpoint);
    assert_eq!(tuple.values.len(), 2);
    assert_eq!((&tuple.values["notes"], &tuple.values["count"]), (&ChannelValue::json(&json!(["ä", null])), &opaque));
    assert_eq!(tuple.pending_writes, []);
}

pub(super) fn the_latest_checkpoint_is_that_with_the_largest_id(store: &dyn CheckpointStore) {
    for id in ["2", "3", "1"] {
        put(store, snapshot("t", id), vec![]);
    }
    assert_eq!(get(store, "t", None).checkpoint.id, "3");
    assert_eq!(get(store, "t", Some("1")).checkpoint.id, "1");
}

pub(super) fn a_checkpoint_of_another_thread_or_namespace_is_not_found(store: &dyn CheckpointStore) {
    put(store, snapshot("t", "1"), vec![]);
    assert_eq!(store.get_tuple(&at("t", Some("2"))).unwrap(), None);
    assert_eq!(store.get_tuple(&at("u", None)).unwrap(), None);
    assert_eq!(store.get_tuple(&CheckpointRef { ns: "child".into(), ..at("t", None) }).unwrap(), None);
}

pub(super) fn a_channel_comes_at_the_version_that_the_checkpoint_names(store: &dyn CheckpointStore) {
    put(
        store,
        with_versions("t", "1", &json!({"a": "1", "b": "1"})),
        vec![blob("a", "1", &json!(["a1"])), blob("b", "1", &json!(["b1"]))],
    );
    // Only what changed is stored again; the other channel stays at its version.
    put(store, with_versions("t", "2", &json!({"a": "2", "b": "1"})), vec![blob("a", "2", &json!(["a2"]))]);
    let values = |id| get(store, "t", Some(id)).values;
    assert_eq!(values("1")["a"], ChannelValue::json(&json!(["a1"])));
    assert_eq!(values("2")["a"], ChannelValue::json(&json!(["a2"])));
    assert_eq!(values("2")["b"], ChannelValue::json(&json!(["b1"])));
}

pub(super) fn a_channel_marked_empty_has_no_value(store: &dyn CheckpointStore) {
    let empty = ChannelValue { kind: "empty".into(), bytes: vec![] };
    let blobs = vec![ChannelBlob { channel: "a".into(), version: "1".into(), value: empty }];
    put(store, with_versions("t", "1", &json!({"a": "1"})), blobs);
    assert!(get(store, "t", None).values.is_empty());
}

pub(super) fn storing_a_checkpoint_again_overwrites_the_snapshot_only(store: &dyn CheckpointStore) {
    let first = Checkpoint { parent_id: Some("0".into()), ..snapshot("t", "1") };
    put(store, first.clone(), vec![]);
    let again = Checkpoint { parent_id: None, metadata: json!({"step": 2}), body: json!({"v": 5}), ..first.clone() };
    put(store, again.clone(), vec![]);
    assert_eq!(get(store, "t", None).checkpoint, Checkpoint { parent_id: first.parent_id, ..again });
    assert_eq!(store.list(&ListCheckpoints { thread_id: "t".into(), ..Default::default() }).unwrap().len(), 1);
}

pub(super) fn a_channel_version_is_never_overwritten(store: &dyn CheckpointStore) {
    for value in ["first", "second"] {
        put(store, with_versions("t", "1", &json!({"a": "1"})), vec![blob("a", "1", &json!([value]))]);
    }
    assert_eq!(get(store, "t", None).values["a"], ChannelValue::json(&json!(["first"])));
}

pub(super) fn writes_come_back_in_order_of_task_and_index(store: &dyn CheckpointStore) {
    put(store, snapshot("t", "1"), vec![]);
    let (a0, a1, b0, special) =
        (write("a", 0, "a0"), write("a", 1, "a1"), write("b", 0, "b0"), write("b", -1, "error"));
    store.put_writes(&at("t", Some("1")), &[b0.clone(), special.clone()]).unwrap();
    store.put_writes(&at("t", None), &[a1.clone(), a0.clone()]).unwrap();
    assert_eq!(get(store, "t", None).pending_writes, [a0, a1, special, b0]);
}

pub(super) fn an_ordinary_write_keeps_what_is_there_and_a_special_one_does_not(store: &dyn CheckpointStore) {
    put(store, snapshot("t", "1"), vec![]);
    store.put_writes(&at("t", Some("1")), &[write("a", 0, "first"), write("a", -1, "first")]).unwrap();
    store.put_writes(&at("t", Some("1")), &[write("a", 0, "second"), write("a", -1, "second")]).unwrap();
    assert_eq!(get(store, "t", None).pending_writes, [write("a", -1, "second"), write("a", 0, "first")]);
}

pub(super) fn writes_belong_to_one_checkpoint(store: &dyn CheckpointStore) {
    put(store, snapshot("t", "1"), vec![]);
    put(store, snapshot("t", "2"), vec![]);
    store.put_writes(&at("t", Some("1")), &[write("a", 0, "value")]).unwrap();
    assert_eq!(get(store, "t", Some("1")).pending_writes.len(), 1);
    assert_eq!(get(store, "t", Some("2")).pending_writes.len(), 0);
}

pub(super) fn a_list_is_newest_first_and_goes_on_before_an_id(store: &dyn CheckpointStore) {
    for id in ["2", "4", "1", "3"] {
        put(store, with_versions("t", id, &json!({"a": id})), vec![blob("a", id, &json!([id]))]);
    }
    put(store, snapshot("other", "5"), vec![]);
    let query = ListCheckpoints { thread_id: "t".into(), ..Default::default() };
    let all = store.list(&query).unwrap();
    assert_eq!(ids(&all), ["4", "3", "2", "1"]);
    assert_eq!(all[1].values["a"], ChannelValue::json(&json!(["3"])), "each with its channels");
    assert_eq!(ids(&store.list(&ListCheckpoints { limit: Some(2), ..query.clone() }).unwrap()), ["4", "3"]);
    let page = ListCheckpoints { before: Some("3".into()), limit: Some(1), ..query };
    assert_eq!(ids(&store.list(&page).unwrap()), ["2"]);
}

pub(super) fn a_list_is_filtered_by_what_the_metadata_contains(store: &dyn CheckpointStore) {
    for (id, metadata) in [
        ("1", json!({"source": "input", "step": -1})),
        ("2", json!({"source": "loop", "step": 0, "writes": {"a": {"b": [1, 2]}}})),
        ("3", json!({"source": "loop", "step": 1, "score": null})),
    ] {
        put(store, Checkpoint { metadata, ..snapshot("t", id) }, vec![]);
    }
    let list = |filter: Value| {
        let Value::Object(filter) = filter else { panic!("a filter is an object") };
        let query = ListCheckpoints { thread_id: "t".into(), filter, limit: Some(2), ..Default::default() };
        store.list(&query).unwrap().into_iter().map(|tuple| tuple.checkpoint.id).collect::<Vec<_>>()
    };
    assert_eq!(list(json!({})), ["3", "2"]);
    assert_eq!(list(json!({"source": "input"})), ["1"]);
    assert_eq!(list(json!({"source": "loop", "step": 1})), ["3"]);
    assert_eq!(list(json!({"writes": {"a": {"b": [2]}}})), ["2"]);
    assert_eq!(list(json!({"score": null})), ["3"], "null is a value, not an absence");
    assert_eq!(list(json!({"source": "fork"})), [""; 0]);
}

pub(super) fn a_list_is_of_one_namespace_or_of_all(store: &dyn CheckpointStore) {
    put(store, snapshot("t", "1"), vec![]);
    put(store, Checkpoint { ns: "child".into(), ..snapshot("t", "2") }, vec![]);
    put(store, snapshot("t", "3"), vec![]);
    let list = |ns: Option<&str>| {
        let query = ListCheckpoints { thread_id: "t".into(), ns: ns.map(Into::into), ..Default::default() };
        store.list(&query).unwrap().into_iter().map(|tuple| tuple.checkpoint.id).collect::<Vec<_>>()
    };
    assert_eq!(list(None), ["3", "2", "1"]);
    assert_eq!(list(Some("")), ["3", "1"]);
    assert_eq!(list(Some("child")), ["2"]);
    let query = ListCheckpoints { thread_id: "t".into(), ..Default::default() };
    let page =
        |before: &str, limit| ListCheckpoints { before: Some(before.into()), limit: Some(limit), ..query.clone() };
    assert_eq!(ids(&store.list(&page("3", 1)).unwrap()), ["2"]);
    assert_eq!(ids(&store.list(&page("4", 2)).unwrap()), ["3", "2"]);
    assert_eq!(ids(&store.list(&page("2", 5)).unwrap()), ["1"]);
}

pub(super) fn a_bare_list_is_of_snapshots_without_values(store: &dyn CheckpointStore) {
    let body = json!({"channel_values": {"inline": "a word"}, "channel_versions": {"inline": "1", "a": "1"}});
    let metadata = json!({"step": 1, "writes": {"node": "what a step wrote, once more"}});
    let checkpoint = Checkpoint { parent_id: Some("0".into()), body, metadata, ..snapshot("t", "1") };
    put(store, checkpoint.clone(), vec![blob("a", "1", &json!([1]))]);
    store.put_writes(&at("t", None), &[write("a", 0, "v")]).unwrap();
    let query = ListCheckpoints { thread_id: "t".into(), bare: true, ..Default::default() };
    let body = json!({"channel_versions": {"inline": "1", "a": "1"}});
    let bare = CheckpointTuple {
        checkpoint: Checkpoint { body, metadata: json!({"step": 1}), ..checkpoint },
        values: std::collections::BTreeMap::new(),
        pending_writes: vec![],
    };
    assert_eq!(store.list(&query).unwrap(), [bare]);
    assert_eq!(store.list(&ListCheckpoints { bare: false, ..query }).unwrap(), [get(store, "t", None)]);
}

pub(super) fn the_checkpoints_of_a_thread_are_counted_in_all_namespaces(store: &dyn CheckpointStore) {
    put(store, snapshot("t", "1"), vec![]);
    put(store, Checkpoint { ns: "child".into(), ..snapshot("t", "1") }, vec![]);
    put(store, snapshot("u", "1"), vec![]);
    assert_eq!((store.checkpoint_count("t").unwrap(), store.checkpoint_count("v").unwrap()), (2, 0));
}

pub(super) fn the_last_of_several_writes_to_a_special_channel_stays(store: &dyn CheckpointStore) {
    put(store, snapshot("t", "1"), vec![]);
    store.put_writes(&at("t", None), &[write("a", -1, "first"), write("a", -1, "second")]).unwrap();
    store.put_writes(&at("t", None), &[write("b", 0, "first"), write("b", 0, "second")]).unwrap();
    assert_eq!(get(store, "t", None).pending_writes, [write("a", -1, "second"), write("b", 0, "first")]);
}

pub(super) fn writes_need_a_checkpoint_to_come_after(store: &dyn CheckpointStore) {
    assert!(store.put_writes(&at("t", None), &[write("a", 0, "v")]).is_err());
    store.put_writes(&at("t", Some("1")), &[write("a", 0, "v")]).unwrap();
    put(store, snapshot("t", "1"), vec![]);
    assert_eq!(get(store, "t", None).pending_writes.len(), 1, "a checkpoint may be stored after the writes to it");
}

pub(super) fn deleting_a_thread_of_checkpoints_removes_exactly_it(store: &dyn CheckpointStore) {
    for thread_id in ["t", "u"] {
        put(store, with_versions(thread_id, "1", &json!({"a": "1"})), vec![blob("a", "1", &json!([1]))]);
        put(store, Checkpoint { ns: "child".into(), ..snapshot(thread_id, "2") }, vec![]);
        let writes = [write("a", 0, "v"), write("a", 1, "v"), write("b", 0, "v")];
        store.put_writes(&at(thread_id, Some("1")), &writes).unwrap();
    }
    let kept = get(store, "u", None);
    let rows = CheckpointRows { checkpoints: 2, blobs: 1, writes: 3 };
    assert_eq!(store.delete_thread("t").unwrap(), rows);
    assert_eq!(store.get_tuple(&at("t", None)).unwrap(), None);
    assert_eq!(get(store, "u", None), kept);
    assert_eq!(store.delete_thread("t").unwrap(), CheckpointRows::default());
    assert_eq!(store.delete_thread("u").unwrap(), rows);
}
