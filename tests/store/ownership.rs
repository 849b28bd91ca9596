//! What root makes in a state directory that is somebody else's, with `holdfast import`, `holdfast migrate-store` and `holdfast token`.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use holdfast::app::STORE_FILE;
use holdfast::auth::Secret;
use holdfast::ownership;
use rusqlite::{Connection, OpenFlags};

use super::migration::{COMMAND, MARK, filled, mover, moves, refused};
use super::postgres::database;
use crate::util::{Launch, require, require_postgres};

/// Goal: root works in the directory of a service's user, and the service starts on it all the same.
#[test]
fn what_root_makes_in_a_state_directory_belongs_to_whom_the_directory_does() {
    if !require_postgres() || !require("root", rustix::process::geteuid().is_root()) {
        return;
    }
    let database = database();
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    filled(&state, 1);
    let files = || std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path());
    let nobody = 65_534;
    for path in files().chain([state.clone()]) {
        chown(path, Some(nobody), Some(nobody)).unwrap();
    }
    let table = home.path().join("birds.csv");
    std::fs::write(&table, "city,birds\nOslo,3\n").unwrap();
    let imported = mover(&state).run(&["import", table.to_str().unwrap()]);
    assert_eq!(imported.code, Some(0), "{imported:?}");
    moves(&mover(&state).on(&database));
    // While it is open it has its companions.
    let open = Connection::open(state.join(STORE_FILE)).unwrap();
    open.execute("UPDATE runs SET prompt = 'another'", []).unwrap();
    let owners = files().map(|path| (path.metadata().unwrap().uid(), path)).collect::<BTreeSet<_>>();
    assert!(owners.iter().all(|(uid, _)| *uid == nobody), "{owners:?}");
    for name in ["lock", "instance", MARK, "datasets.sqlite", "holdfast.sqlite-wal"] {
        assert!(owners.contains(&(nobody, state.join(name))), "{name} is not in {owners:?}");
    }
}

/// Goal: who owns a state directory gets nothing of root's by it. Each name that root opens there leads to a file of root's, in turn.
#[test]
fn root_follows_no_link_in_a_state_directory_of_somebody_else() {
    if !require_postgres() || !require("root", rustix::process::geteuid().is_root()) {
        return;
    }
    let database = database();
    let home = tempfile::tempdir().unwrap();
    let (state, victim) = (home.path().join("state"), home.path().join("victim"));
    filled(&state, 1);
    let nobody = Some(65_534);
    for path in [state.clone(), state.join(STORE_FILE)] {
        chown(path, nobody, nobody).unwrap();
    }
    let table = home.path().join("birds.csv");
    std::fs::write(&table, "city,birds\nOslo,3\n").unwrap();
    let import = || mover(&state).run(&["import", table.to_str().unwrap()]);
    // Empty, it would become a database.
    for text in ["", "root's\n"] {
        let is_as_it_was = || {
            assert_eq!(std::fs::read_to_string(&victim).unwrap(), text);
            assert_eq!(victim.metadata().unwrap().uid(), 0);
        };
        std::fs::write(&victim, text).unwrap();
        symlink(&victim, state.join("datasets.sqlite")).unwrap();
        refused(&import(), 2, "datasets.sqlite is a link");
        let (path, flag) = ownership::for_sqlite(&state.join("datasets.sqlite"));
        let opened = Connection::open_with_flags(path, flag | OpenFlags::SQLITE_OPEN_READ_WRITE);
        assert!(opened.is_err(), "exchanged in between, it is not followed either");
        is_as_it_was();
        for name in ["lock", STORE_FILE] {
            let aside = state.join("aside");
            let moved_aside = std::fs::rename(state.join(name), &aside);
            symlink(&victim, state.join(name)).unwrap();
            refused(&mover(&state).on(&database).run(COMMAND), 2, &format!("{name} is a link"));
            is_as_it_was();
            std::fs::remove_file(state.join(name)).unwrap();
            let _ = moved_aside.and_then(|()| std::fs::rename(&aside, state.join(name)));
        }
        std::fs::remove_file(state.join("datasets.sqlite")).unwrap();
    }
    for aside in ["instance.new", "moved-to-postgresql.new"] {
        symlink(&victim, state.join(aside)).unwrap();
    }
    // A link to the directory is the choice of whoever named it, as /var/lib/holdfast is.
    let named = home.path().join("named");
    symlink(&state, &named).unwrap();
    std::fs::remove_file(state.join("instance")).unwrap_or_default();
    moves(&mover(&named).on(&database));
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "root's\n");
    assert_eq!(victim.metadata().unwrap().uid(), 0);
    // A second name of a file is as good as a link.
    std::fs::remove_file(state.join("lock")).unwrap();
    std::fs::hard_link(&victim, state.join("lock")).unwrap();
    moves(&mover(&named).on(&database));
    assert_eq!(victim.metadata().unwrap().uid(), 0);
}

/// Goal: a token that root makes is signed with the key of the directory's owner, whether there was one or not, and with nothing else
/// that has its name: who knows a token's text can try keys on it, and so would learn what is in a file of root's.
#[test]
fn a_token_that_root_makes_is_signed_with_a_secret_of_the_directorys_owner() {
    if !require("root", rustix::process::geteuid().is_root()) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (state, victim) = (home.path().join("state"), home.path().join("victim"));
    let secret = state.join(Secret::FILE);
    std::fs::create_dir(&state).unwrap();
    let nobody = 65_534;
    chown(&state, Some(nobody), Some(nobody)).unwrap();
    let launch: Launch = mover(&state).without("JWT_SECRET");
    let token = || launch.run(&["token", "--email", "ann@example.org"]);
    let made = token();
    assert_eq!(made.code, Some(0), "{made:?}");
    let owner = secret.metadata().unwrap();
    assert_eq!((owner.uid(), owner.gid(), owner.mode() & 0o7777), (nobody, nobody, 0o600));
    assert_eq!(token().code, Some(0), "what is there is used");
    std::fs::remove_file(&secret).unwrap();

    std::fs::write(&victim, "r".repeat(64)).unwrap();
    std::fs::set_permissions(&victim, Permissions::from_mode(0o600)).unwrap();
    symlink(&victim, &secret).unwrap();
    refused(&token(), 2, "jwt-secret is a link");
    std::fs::remove_file(&secret).unwrap();
    std::fs::hard_link(&victim, &secret).unwrap();
    refused(&token(), 2, "another name of a file of somebody else");
    assert_eq!(victim.metadata().unwrap().uid(), 0);
    std::fs::remove_file(&secret).unwrap();
    // Nobody writes into it: who waited would wait for ever.
    rustix::fs::mknodat(rustix::fs::CWD, &secret, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    refused(&token(), 2, "not a small regular file");
}
