public import SCSI

/// What the engine is to do, in the order in which it is handed out.
public enum PseudoLUNAction: Sendable {
    /// Send the request on the path.
    case issue(RequestIndex, on: PathIndex)
    /// The request is over; its slot may be given out again by the next `admit`.
    case finish(RequestIndex, RequestResult)
    /// The request no longer counts on this path. The path may still work on it: its buffer must not go
    /// back to the caller while the path's socket could touch it. A late answer may be handed in
    /// (`completed`); for a write it should be, it ends the old copy.
    case withdraw(RequestIndex, on: PathIndex)
    /// Ask the target to end this request (ABORT TASK), if it still has it. Nothing answers but the request's own
    /// completion, late or not.
    case abort(RequestIndex, on: PathIndex)
    /// Connect the path's transport, by the same ISID. Several LUNs may wish the same.
    case connect(PathIndex)
    /// Ask the path; see ``ProbeReason`` for what to ask and how to answer.
    case probe(PathIndex, ProbeReason)
    /// This LUN no longer needs the path's transport.
    case disconnect(PathIndex)
    /// End the path's session now, without a word to the target; for the other LUNs on it as well. `pathFailed` follows.
    case drop(PathIndex)
    /// Answered by `fenceResult`.
    case fence(PathIndex, FenceStep)
    /// Send SET TARGET PORT GROUPS with this one change on the path. Answered by `transitionFinished`.
    case setTargetPortGroup(PathIndex, TargetPortGroupChange)
    /// Tell whoever listens.
    case event(MultipathEvent)
}

/// A growable ring. It grows only when the engine leaves more undone than there are requests.
struct Ring<Element> {
    private var storage: UnsafeMutablePointer<Element>
    private var capacity: Int
    private var head = 0
    private(set) var count = 0

    init(capacity wanted: Int) {
        capacity = 16
        while capacity < wanted { capacity *= 2 }
        storage = .allocate(capacity: capacity)
    }

    func deallocate() {
        for offset in 0..<count { (storage + ((head + offset) & (capacity - 1))).deinitialize(count: 1) }
        storage.deallocate()
    }

    @inline(__always)
    mutating func push(_ element: Element) {
        if count == capacity { grow() }
        (storage + ((head + count) & (capacity - 1))).initialize(to: element)
        count += 1
    }

    @inline(__always)
    mutating func pop() -> Element? {
        guard count > 0 else { return nil }
        let element = (storage + head).move()
        count -= 1
        // Emptied, it begins again where it is warm: going round would touch all of its memory.
        head = count == 0 ? 0 : (head + 1) & (capacity - 1)
        return element
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<Element>.allocate(capacity: capacity * 2)
        for offset in 0..<count {
            (larger + offset).moveInitialize(from: storage + ((head + offset) & (capacity - 1)), count: 1)
        }
        storage.deallocate()
        storage = larger
        capacity *= 2
        head = 0
    }
}
