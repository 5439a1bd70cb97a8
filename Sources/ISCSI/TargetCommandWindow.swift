/// The CmdSN window of a session (RFC 7143 section 4.2.2.1), over all its connections: which numbers came, which are
/// missing, and what waits behind a missing one. Plain data; one thread.
struct TargetCommandWindow: ~Copyable {
    /// The number did not come yet.
    static let nothing: Int32 = -1
    /// It came, or counts as come, and there is nothing to do for it.
    static let skipped: Int32 = -2
    /// This and below: an early request other than a command.
    static let firstEarly: Int32 = -3

    let depth: Int
    private(set) var expCmdSN: UInt32
    private(set) var maxCmdSN: UInt32
    /// By CmdSN; a power of two, so that neighbours differ where the numbers wrap, too.
    private let entries: UnsafeMutablePointer<Int32>
    private let mask: UInt32
    /// Numbers from ExpCmdSN on that came.
    private(set) var heldCount = 0

    init(depth: Int, first: UInt32) {
        self.depth = depth
        expCmdSN = first
        maxCmdSN = first &+ UInt32(depth) &- 1
        var size = 1
        while size < depth { size *= 2 }
        mask = UInt32(size - 1)
        entries = .allocate(capacity: size)
        entries.initialize(repeating: Self.nothing, count: size)
    }

    deinit { entries.deallocate() }

    /// Inside of the window, and for the first time. Other numbers are ignored.
    @inline(__always)
    func isWanted(_ cmdSN: UInt32) -> Bool {
        cmdSN &- expCmdSN <= maxCmdSN &- expCmdSN && maxCmdSN &- expCmdSN < 0x8000_0000
            && entries[Int(cmdSN & mask)] == Self.nothing
    }

    /// `cmdSN` must be wanted.
    @inline(__always)
    mutating func hold(_ cmdSN: UInt32, _ entry: Int32) {
        entries[Int(cmdSN & mask)] = entry
        heldCount += 1
    }

    /// What holds a number that has not had its turn.
    @inline(__always)
    func entry(_ cmdSN: UInt32) -> Int32 { entries[Int(cmdSN & mask)] }

    /// The number is missing again: its PDU never came whole.
    mutating func forget(_ cmdSN: UInt32, of entry: Int32) {
        guard entries[Int(cmdSN & mask)] == entry else { return }
        entries[Int(cmdSN & mask)] = Self.nothing
        heldCount -= 1
    }

    /// What held the number is over; it counts as received.
    mutating func skip(_ cmdSN: UInt32, of entry: Int32) {
        guard entries[Int(cmdSN & mask)] == entry else { return }
        entries[Int(cmdSN & mask)] = Self.skipped
    }

    /// ExpCmdSN came and takes its turn.
    @inline(__always)
    mutating func advance() {
        let place = Int(expCmdSN & mask)
        if entries[place] != Self.nothing {
            entries[place] = Self.nothing
            heldCount -= 1
        }
        expCmdSN &+= 1
    }

    /// MaxCmdSN, where so many commands may be granted beyond those that came. It never goes back.
    @inline(__always)
    mutating func grant(_ room: Int) -> UInt32 {
        let limit = expCmdSN &+ UInt32(max(0, min(depth, room + heldCount))) &- 1
        if SerialNumber.isBefore(maxCmdSN, limit) { maxCmdSN = limit }
        return maxCmdSN
    }
}
