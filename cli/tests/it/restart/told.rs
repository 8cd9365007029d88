//! What the service manager hears of a restart.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;

use crate::restart::Site;
use crate::support::served::{MODELS, PATIENCE};
use crate::support::sockets::{Directory, Stream};

/// The next message, with what follows RELOADING left out.
#[track_caller]
fn hear(manager: &UnixDatagram) -> String {
    let mut room = [0; 256];
    let count = manager.recv(&mut room).expect("a message");
    let text = String::from_utf8_lossy(&room[..count]).into_owned();
    let news = text.split_once("\nMONOTONIC_USEC").map(|(news, _)| news);
    news.unwrap_or(&text).to_owned()
}

#[test]
fn the_manager_hears_which_process_is_the_main_one() {
    for model in MODELS {
        let directory = Directory::new();
        let manager = UnixDatagram::bind(directory.path("manager")).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let uri = directory.uri("unix", "echo");
        let prepare = format!(
            "export NOTIFY_SOCKET='{}'",
            directory.path("manager").display()
        );
        let arguments = [&["echo", "--listen", &uri], model].concat();
        let mut site = Site::in_directory(directory, &prepare, &arguments);
        assert_eq!(hear(&manager), "READY=1", "{model:?}");

        for round in 0..2 {
            let mut client = Stream::connect(&uri);
            assert!(client.echoes());
            site.restart();
            assert_eq!(hear(&manager), "RELOADING=1", "{model:?}");
            assert_eq!(hear(&manager), format!("MAINPID={}", site.process()));
            assert_eq!(hear(&manager), "READY=1", "{model:?}");
            drop(client);
            if round == 0 {
                assert_eq!(site.old_ends().code(), Some(0));
            }
        }

        site.replace("exit 3");
        site.fails("exit status: 3");
        assert_eq!(hear(&manager), "RELOADING=1", "{model:?}");
        assert_eq!(hear(&manager), "READY=1", "{model:?}");

        // Nothing was heard of the ends of the old ones.
        site.signal(Signal::TERM);
        assert_eq!(hear(&manager), "STOPPING=1", "{model:?}");
    }
}

#[test]
fn the_new_process_gives_the_signs_of_life() {
    let directory = Directory::new();
    let manager = UnixDatagram::bind(directory.path("manager")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let prepare = format!(
        "export NOTIFY_SOCKET='{}' WATCHDOG_USEC=100000 WATCHDOG_PID=$$",
        directory.path("manager").display()
    );
    let uri = directory.uri("unix", "echo");
    let site = Site::in_directory(directory, &prepare, &["echo", "--listen", &uri]);
    // It goes on, and says nothing more.
    let mut client = Stream::connect(&uri);
    assert!(client.echoes());
    site.restart();
    while hear(&manager) != format!("MAINPID={}", site.process()) {}
    while hear(&manager) != "READY=1" {}
    for _ in 0..8 {
        assert_eq!(hear(&manager), "WATCHDOG=1");
    }
    site.signal(Signal::STOP);
    manager
        .set_read_timeout(Some(Duration::from_millis(400)))
        .unwrap();
    while manager.recv(&mut [0; 64]).is_ok() {}
    site.signal(Signal::CONT);
    assert!(client.echoes());
    drop(client);
    site.signal(Signal::KILL);
}
