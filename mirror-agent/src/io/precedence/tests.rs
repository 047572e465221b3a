//! When the thread that sends gives way.

use std::sync::mpsc;

use super::*;

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
        let does = course.review(at(now), is_late, at(now));
        given += u64::from(does);
        late += u32::from(did && !does);
    }
    (given as f64 / (millis * 10) as f64, late)
}

#[test]
fn thread_that_keeps_up_gives_way_once_copies_come_steadily() {
    let mut course = Course::default();
    assert!(!course.review(at(0), false, at(0)), "one copy is not many");
    let (share, late) = look(&mut course, 100, 1000, |_| 100);
    assert!(share > 0.97 && late == 0, "{share}, {late}");
    assert!(course.gave_way(at(2_000_000)) > Duration::from_millis(900));
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
    assert!(!course.review(at(14_000_000), true, at(14_000_000)));
    assert_eq!(course.pause, SHORTEST_PAUSE);
}

#[test]
fn lull_and_rest_make_it_ordinary_and_neither_counts_as_late() {
    for ends in [
        |course: &mut Course| course.review(at(60_100), false, at(50_000)),
        |course: &mut Course| course.rest(at(60_100)),
    ] {
        let mut course = Course::default();
        look(&mut course, 0, 50, |_| 100);
        assert!(course.gives_way);
        assert!(!ends(&mut course));
        assert_eq!(course.pause, SHORTEST_PAUSE);
    }
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

/// Runs in a thread of its own, which the kernel treats as it is told; what it starts is ordinary.
#[test]
fn kernel_hears_of_it_and_threads_that_are_started_do_not_inherit_it() {
    let (tell, told) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let sender = thread::spawn(move || {
        let precedence = std::sync::Arc::new(Precedence::of_this_thread());
        tell.send(std::sync::Arc::clone(&precedence)).unwrap();
        // Until the other end is dropped.
        let _dropped = ended.recv();
        let gave_way = sys::policy().unwrap();
        let child = spawn("child".to_owned(), || sys::policy().unwrap()).unwrap().join().unwrap();
        precedence.rest();
        (gave_way, child, sys::policy().unwrap())
    });
    let precedence = told.recv().unwrap();
    if precedence.thread.is_none() {
        println!("skipped: this process may not leave SCHED_IDLE, or does not run as SCHED_OTHER");
        return;
    }
    let begin = clock::now();
    precedence.asked(begin);
    precedence.came();
    precedence.review(begin, false);
    while !precedence.course.lock().unwrap().gives_way {
        assert!(clock::now().since(begin) < Duration::from_secs(10), "it never gave way");
        thread::sleep(Duration::from_millis(1));
        precedence.asked(clock::now());
        precedence.came();
        precedence.review(clock::now(), false);
    }
    drop(end);
    let told = sender.join().unwrap();
    assert_eq!(told, (Policy::Idle, Policy::Ordinary, Policy::Ordinary));
    assert!(precedence.gave_way() > Duration::ZERO);
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
