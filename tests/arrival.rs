//! Servers and clients connect to one port, in any order and mixed.

mod common;

use common::Group;

#[test]
fn servers_arrive_in_any_order() {
    for order in [[3, 2, 1], [2, 3, 1], [3, 1, 2]] {
        let mut group = Group::new(3);
        let mut waiting = Vec::new();
        for n in order {
            group.start(n);
            waiting.push(group.connect(n));
        }
        let primary = group.wait_members(3);
        group.client(primary, "ann");
        for client in &mut waiting {
            assert_eq!(client.ask("PING x"), "OK x");
        }
    }
}
