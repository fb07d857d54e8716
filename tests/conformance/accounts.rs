//! A changed password, a deleted account, and the notes that their sessions receive.

use crate::scene::Scene;

#[test]
fn passwd_changes_the_password() {
    Scene::of(&["ann"]).play(
        "ann > PASSWD correct-horse new-password
         ann < OK
         bob > LOGIN @ann correct-horse
         bob < ERR wrong-password ...
         bob > LOGIN @ann new-password
         bob < OK @ann 0
         ann > DELETE @ann new-password
         ann < OK
         ann end
         bob < NOTE deleted ...
         bob end",
    );
}

#[test]
fn passwd_closes_the_other_sessions_with_a_note() {
    Scene::of(&["ann"]).play(
        "phone > LOGIN @ann correct-horse
         phone < OK @ann 0
         ann > PASSWD correct-horse new-password
         ann < OK
         phone < NOTE password-changed ...
         phone end
         ann > SEND @ann this one goes on
         ann < OK 1
         ann < MSG 1 TIME @ann this one goes on
         ann > PASSWD new-password correct-horse
         ann < OK",
    );
}

#[test]
fn passwd_with_a_wrong_password_changes_nothing() {
    Scene::of(&["ann"]).play(
        "phone > LOGIN @ann correct-horse
         phone < OK @ann 0
         ann > PASSWD wrong-horse new-password
         ann < ERR wrong-password ...
         bob > LOGIN @ann correct-horse
         bob < OK @ann 0",
    );
}

#[test]
fn delete_ends_the_account_and_its_sessions() {
    Scene::of(&["ann", "bob"]).play(
        "phone > LOGIN @ann correct-horse
         phone < OK @ann 0
         ann > DELETE @ann correct-horse
         ann < OK
         ann end
         phone < NOTE deleted ...
         phone end
         bob > LIST @ann
         bob < OK 0
         bob > SEND @ann too late
         bob < ERR no-such-user ...
         eve > LOGIN @ann correct-horse
         eve < ERR wrong-password ...",
    );
}

#[test]
fn delete_with_a_wrong_password_deletes_nothing() {
    Scene::of(&["ann"]).play(
        "ann > DELETE @ann wrong-horse
         ann < ERR wrong-password ...
         ann > LIST @ann
         ann < USER @ann online
         ann < OK 1",
    );
}

#[test]
fn delete_is_for_ones_own_account() {
    let mut scene = Scene::of(&["ann", "bob"]);
    let answer = scene.fill("DELETE @bob correct-horse");
    let answer = scene.client("ann").ask(&answer);
    assert!(answer.starts_with("ERR "), "{answer}");
    scene.play(
        "ann > LIST @bob
         ann < USER @bob online
         ann < OK 1",
    );
}

#[test]
fn messages_stay_when_their_sender_is_deleted() {
    Scene::of(&["ann", "bob"]).play(
        "ann > SEND @bob from the past
         ann < OK 1
         bob < MSG 1 TIME @ann from the past
         ann > DELETE @ann correct-horse
         ann < OK
         ann end
         bob > LOG
         bob < MSG 1 TIME @ann from the past
         bob < OK 1",
    );
}

#[test]
fn a_new_account_of_a_deleted_name_starts_empty_at_1() {
    Scene::of(&["ann", "bob"]).play(
        "bob > SEND @ann one
         bob < OK 1
         ann < MSG 1 TIME @bob one
         ann > DELETE @ann correct-horse
         ann < OK
         ann end
         ann > CREATE @ann correct-horse
         ann < OK @ann
         ann > LOGIN @ann correct-horse
         ann < OK @ann 0
         bob > SEND @ann another first
         bob < OK 1
         ann < MSG 1 TIME @bob another first
         ann > LOG
         ann < MSG 1 TIME @bob another first
         ann < OK 1",
    );
}
