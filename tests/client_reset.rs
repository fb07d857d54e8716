//! A client that disconnects in the middle of a request harms nobody; requests that were received
//! are executed.

mod common;

use common::Group;
use socket2::SockRef;
use std::time::Duration;

#[test]
fn a_reset_in_the_middle_of_a_request_harms_nobody() {
    let group = Group::alone();
    let mut bob = group.client(1, "bob");
    for (n, part) in ["SEND bob never fin", "SEND bob taken\nSEND bob par", "LOG\nLOG\nLO", ""]
        .into_iter()
        .enumerate()
    {
        let mut ann = group.client(1, "ann");
        ann.send_bytes(part.as_bytes());
        let socket = SockRef::from(&ann.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        drop(ann);
        group.wait(1, "its session is gone", |status| status["sessions"] == "1");
        assert_eq!(bob.ask(&format!("PING {n}")), format!("OK {n}"));
    }
    let texts = group.mailbox(1, "bob");
    assert!(texts.is_empty() || texts == ["taken"], "{texts:?}");
}
