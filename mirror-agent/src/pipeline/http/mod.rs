//! Enters: bytes of one side of a flow. Leaves: HTTP/1.x messages, event by event.
