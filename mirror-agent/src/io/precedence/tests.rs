//! When the thread that sends gives way.

use std::sync::mpsc;

use super::{course::SHORTEST_PAUSE, *};

fn at(micros: u64) -> Timestamp {
    Timestamp::from_nanos(1_000_000_000 + micros * 1000)
}

/// Looks every 100 us from `from` on, while a copy is queued every 100 us and taken after `wait` of when it gives way. Returns
/// for which share of the time it did, and how often copies were late.
fn look(course: &mut Course, from: u64, millis: u64, wait: impl Fn(u64) -> u64) -> (f64, u32) {
    let (mut asked, mut given, mut late) = (None, 0, 0);
    for step in 0..millis * 10 {
        let now = from + step * 100;
        // What an ordinary thread is asked for it does at once.
        let patience = if course.gives_way { wait(now) } else { 0 };
        if asked.is_some_and(|asked| now - asked >= patience) {
            asked = None;
        }
        asked = asked.or(Some(now));
        let did = course.gives_way;
        let is_late = asked.is_some_and(|asked| now - asked >= 500);
        course.review(at(now), is_late, at(now));
        given += u64::from(course.gives_way);
        late += u32::from(did && !course.gives_way);
    }
    (given as f64 / (millis * 10) as f64, late)
}

#[test]
fn thread_that_keeps_up_gives_way_once_copies_come_steadily() {
    let mut course = Course::default();
    course.review(at(0), false, at(0));
    assert!(!course.gives_way, "one copy is not many");
    let (share, late) = look(&mut course, 100, 1000, |_| 100);
    assert!(share > 0.97 && late == 0, "{share}, {late}");
}

#[test]
fn thread_that_does_not_run_is_ordinary_at_once_and_tried_ever_less_often() {
    let mut course = Course::default();
    // Whatever it is asked for, while it gives way it does not come.
    let (share, late) = look(&mut course, 0, 20_000, |_| u64::MAX);
    // 2, 4, ... 1,000 ms of pauses, then one a second.
    assert!((15..=30).contains(&late), "{late}");
    assert!(share < 0.003, "{share}");
}

#[test]
fn thread_that_is_late_now_and_then_goes_on_giving_way() {
    let mut course = Course::default();
    // For 5 ms of 100 nothing else lets it run.
    let (share, late) = look(&mut course, 0, 5000, |now| if now % 100_000 < 5000 { u64::MAX } else { 100 });
    assert!(share > 0.9, "{share}");
    assert!((40..=150).contains(&late), "{late}");
}

#[test]
fn thread_gives_way_again_soon_after_a_node_had_no_idle_time() {
    let mut course = Course::default();
    look(&mut course, 0, 10_000, |_| u64::MAX);
    let (share, late) = look(&mut course, 10_000_000, 4000, |_| 100);
    assert!(share > 0.7 && late <= 1, "{share}, {late}");
    // One that is late after so long does not count.
    course.review(at(14_000_000), true, at(14_000_000));
    assert!(!course.gives_way);
    assert_eq!(course.pause, SHORTEST_PAUSE);
}

#[test]
fn lull_and_nobody_looking_make_it_ordinary_and_neither_counts_as_late() {
    for ends in [
        |course: &mut Course| course.review(at(60_100), false, at(50_000)),
        |course: &mut Course| course.interrupt(at(60_100)),
    ] {
        let mut course = Course::default();
        look(&mut course, 0, 50, |_| 100);
        assert!(course.gives_way);
        ends(&mut course);
        assert!(!course.gives_way);
        assert_eq!(course.pause, SHORTEST_PAUSE);
        course.review(at(60_200), false, at(60_200));
        assert!(!course.gives_way, "it is not steady yet");
    }
}

#[test]
fn thread_never_gives_way_again_once_that_is_over() {
    let mut course = Course::default();
    look(&mut course, 0, 50, |_| 100);
    course.end();
    assert_eq!(look(&mut course, 50_000, 1000, |_| 100), (0.0, 0));
}

#[test]
fn what_is_asked_for_first_counts_until_the_thread_comes() {
    let precedence = Precedence::default();
    precedence.asked(at(1));
    precedence.asked(at(2));
    assert_eq!(precedence.asked.load(Ordering::Relaxed), at(1).as_nanos());
    assert_eq!(precedence.latest.load(Ordering::Relaxed), at(2).as_nanos());
    precedence.came();
    precedence.asked(at(3));
    assert_eq!(precedence.asked.load(Ordering::Relaxed), at(3).as_nanos());
}

#[test]
fn account_adds_up_and_never_goes_back() {
    let account = Account::default();
    assert_eq!(account.read(at(0)), Duration::ZERO);
    account.turn(true, at(100));
    assert_eq!(account.read(at(150)), Duration::from_micros(50));
    account.turn(false, at(140));
    assert_eq!(account.read(at(200)), Duration::from_micros(50), "so much was told");
    account.turn(true, at(200));
    assert_eq!(account.read(at(230)), Duration::from_micros(70));
}

#[test]
fn thread_that_is_asked_for_half_a_millisecond_or_is_behind_is_late() {
    for (asked, is_behind, is_late) in [(499, false, false), (500, false, true), (0, true, true)] {
        let precedence = Precedence { thread: Some(sys::this_thread()), ..Precedence::default() };
        look(&mut precedence.lock(), 0, 50, |_| 100);
        precedence.asked(at(50_000 - asked));
        precedence.review(at(50_000), is_behind);
        assert_eq!(precedence.lock().gives_way, !is_late, "{asked}");
    }
}

/// Has the precedence of a thread be looked at as capture threads do, until it gives way.
fn until_it_gives_way(precedence: &Precedence) {
    let begin = clock::now();
    while !precedence.lock().gives_way {
        assert!(clock::now().since(begin) < Duration::from_secs(10), "it never gave way");
        precedence.asked(clock::now());
        precedence.came();
        precedence.review(clock::now(), false);
        thread::sleep(Duration::from_millis(1));
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begin = clock::now();
    while !is_so() {
        assert!(clock::now().since(begin) < Duration::from_secs(10), "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `orders` beside a thread whose precedence it is; that one tells its policy, and that of a thread it starts, each time it
/// is asked.
fn beside(orders: impl FnOnce(&Precedence, &dyn Fn() -> (Policy, Policy))) {
    let (tell, told) = mpsc::channel();
    let (ask, asked) = mpsc::channel::<mpsc::Sender<(Policy, Policy)>>();
    let sender = thread::spawn(move || {
        tell.send(Precedence::of_this_thread()).unwrap();
        // Until the other end is dropped.
        while let Ok(answer) = asked.recv() {
            let child = spawn("child".to_owned(), || sys::policy().unwrap()).unwrap().join().unwrap();
            answer.send((sys::policy().unwrap(), child)).unwrap();
        }
    });
    let precedence = told.recv().unwrap();
    if precedence.thread.is_none() {
        println!(
            "skipped: before Linux 6.6, or this process may not leave SCHED_IDLE, or is not SCHED_OTHER"
        );
    } else {
        orders(&precedence, &|| {
            let (answer, answered) = mpsc::channel();
            ask.send(answer).unwrap();
            answered.recv().unwrap()
        });
    }
    precedence.end();
    drop(ask);
    sender.join().unwrap();
}

#[test]
fn kernel_hears_of_it_and_threads_that_are_started_do_not_inherit_it() {
    beside(|precedence, policies| {
        assert_eq!(policies(), (Policy::Ordinary, Policy::Ordinary));
        until_it_gives_way(precedence);
        // As long as somebody looks.
        precedence.reviewed.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(policies(), (Policy::Idle, Policy::Ordinary));
        assert!(precedence.gave_way() > Duration::ZERO);
        precedence.end();
        assert_eq!(policies(), (Policy::Ordinary, Policy::Ordinary));
    });
}

#[test]
fn thread_is_ordinary_once_nobody_looks_any_more() {
    beside(|precedence, policies| {
        until_it_gives_way(precedence);
        // Capture threads have ended, or wait for a lock that the thread holds.
        wait_until("it gives way though nobody looks", || !precedence.lock().gives_way);
        assert_eq!(policies().0, Policy::Ordinary);
        let account = precedence.gave_way();
        assert!(account > Duration::ZERO);
        thread::sleep(Duration::from_millis(30));
        assert_eq!(precedence.gave_way(), account, "the account goes on");
        until_it_gives_way(precedence);
    });
}

#[test]
fn thread_that_has_ended_gives_way_no_more() {
    let gone = thread::spawn(sys::this_thread).join().unwrap();
    let precedence = Precedence { thread: Some(gone), ..Precedence::default() };
    look(&mut precedence.lock(), 0, 50, |_| 100);
    precedence.asked(at(50_000));
    // The kernel does not know the thread: it cannot be made an ordinary one, which is tried again and again...
    precedence.review(at(51_000), false);
    assert!(precedence.lock().gives_way && precedence.lock().is_stuck);
    precedence.lock().gives_way = false;
    // ... and one that cannot give way is not tried again.
    precedence.came();
    for step in 0..2000 {
        let now = at(52_000 + step * 100);
        precedence.asked(now);
        precedence.came();
        precedence.review(now, false);
    }
    assert!(precedence.lock().is_over && !precedence.lock().gives_way);
}
