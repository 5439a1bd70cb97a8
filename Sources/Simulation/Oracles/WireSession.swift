import ISCSI
import Timebase

/// What the wire oracle knows of one TCP connection.
final class Wire {
    let number: UInt64
    var initiator = PDUFramer()
    var target = PDUFramer()
    /// The initiator's bytes as the target reads them.
    var arriving = PDUFramer()
    var isFullFeature = false
    /// A byte that the initiator receives was changed: what it was told is not known from here on.
    var isBlind = false
    /// A byte that the target receives was changed.
    var isArrivalBlind = false
    var keys: [String: String] = [:]
    var connectionID: UInt16 = 0
    /// The first request of its login.
    var firstLogin: BasicHeaderSegment?
    var session: WireSession?
    /// The StatSN after the last that was received.
    var nextStatSN: UInt32 = 0
    /// The highest CmdSN that went out here for the first time; nil: none yet.
    var lastCmdSN: UInt32?
    /// The target has said that this connection is over: by the answer to a Logout of it, or to a login with its ID.
    var isEnded = false
    /// Tasks may be moved away from then on: that answer, and Time2Wait.
    var endedAt = Instant.zero
    var targetSegment = 8192

    init(number: UInt64) { self.number = number }

    var headerDigest: Bool { keys["HeaderDigest"] == "CRC32C" }
    var dataDigest: Bool { keys["DataDigest"] == "CRC32C" }
    func number(_ key: String, default value: Int) -> Int { keys[key].flatMap { Int($0) } ?? value }
}

/// What the wire oracle knows of one session: what its connections share (RFC 7143 sections 4.2.2.1 and 4.2.5).
final class WireSession {
    struct Task {
        /// The connection that the task belongs to.
        var wire: Wire
        var cmdSN: UInt32
        var isWrite: Bool
        var byteCount: Int
        /// Sent without being asked for, and where it goes on.
        var unsolicited: Int
        var unsolicitedIsOpen: Bool
        var unsolicitedDataSN: UInt32 = 0
        var requests: [Request] = []

        /// The same R2T may come twice, where the initiator asked for it again (section 11.16).
        mutating func take(_ request: Request) {
            guard let index = requests.firstIndex(where: { $0.tag == request.tag }) else { return requests.append(request) }
            if requests[index].end != request.end { requests[index] = request }
        }
    }

    struct Request {
        var tag: UInt32
        var offset: Int
        var end: Int
        var dataSN: UInt32 = 0
    }

    /// The connection on which a CmdSN went out last.
    struct Sent {
        var wire: Wire
        /// The target said by a Reject that it did not take it.
        var isRejected = false
    }

    let level: Int
    let maxConnections: Int
    let firstBurst: Int
    let wantsR2T: Bool
    let takesImmediate: Bool
    /// In the order of their logins.
    var wires: [Wire] = []
    var nextCmdSN: UInt32
    var maxCmdSN: UInt32
    var expCmdSN: UInt32
    /// A connection was damaged: not all that the target said is known.
    var isBlind = false
    var tasks: [UInt32: Task] = [:]
    /// By CmdSN, from ExpCmdSN on.
    var sent: [UInt32: Sent] = [:]
    /// By task tag.
    var logouts: [UInt32: (connectionID: UInt16, reason: UInt8)] = [:]
    var management: [UInt32: (function: UInt8, referenced: UInt32)] = [:]
    /// A number that no connection can bring any more, and since when.
    private var gap: (cmdSN: UInt32, since: Instant)?
    /// Numbers before this one have all reached the target.
    private var arrivedBefore: UInt32
    private var arrivedLater: Set<UInt32> = []
    var isArrivalBlind = false
    private var atUnit: Set<UInt32> = []
    private var lastReadAtUnit: UInt32?

    init(_ wire: Wire, cmdSN: UInt32) {
        level = wire.number("ErrorRecoveryLevel", default: 0)
        maxConnections = wire.number("MaxConnections", default: 1)
        firstBurst = wire.number("FirstBurstLength", default: 65_536)
        wantsR2T = wire.keys["InitialR2T"] != "No"
        takesImmediate = wire.keys["ImmediateData"] != "No"
        nextCmdSN = cmdSN
        maxCmdSN = cmdSN
        expCmdSN = cmdSN
        arrivedBefore = cmdSN
    }

    /// Each request has the next number, and the wire shows them in that order.
    private var isStrict: Bool { maxConnections == 1 && level == 0 }

    // MARK: CmdSN

    /// What is wrong with the number of a request.
    func check(_ header: BasicHeaderSegment, on wire: Wire) -> String? {
        let number = header.cmdSN
        if isStrict {
            guard number == nextCmdSN else { return "CmdSN \(number) where \(nextCmdSN) is next" }
        } else if header.isImmediate {
            if let last = wire.lastCmdSN, !isBefore(last, number) {
                return "an immediate request has CmdSN \(number), after \(last) went out"
            }
        } else if let words = reuse(number, on: wire) {
            return words
        }
        guard !header.isImmediate else { return nil }
        if isBefore(maxCmdSN, number), !isBlind { return "CmdSN \(number) beyond MaxCmdSN \(maxCmdSN)" }
        if let last = wire.lastCmdSN { if isBefore(last, number) { wire.lastCmdSN = number } } else { wire.lastCmdSN = number }
        if !isBefore(number, nextCmdSN) { nextCmdSN = number &+ 1 }
        sent[number] = Sent(wire: wire)
        return nil
    }

    /// A number goes out again only for what a connection lost: once that is over at the target, or within the
    /// connection where digests are recovered (section 7.2.1), or after a Reject (section 11.17.1).
    private func reuse(_ number: UInt32, on wire: Wire) -> String? {
        guard let before = sent[number] else {
            if isBefore(number, expCmdSN), !isBlind { return "CmdSN \(number), which the target took: it waits for \(expCmdSN)" }
            if let last = wire.lastCmdSN, !isBefore(last, number), !wires.contains(where: \.isEnded) {
                return "CmdSN \(number) after \(last)"
            }
            return nil
        }
        if isBefore(number, expCmdSN), !isBlind { return "CmdSN \(number) again, which the target took: it waits for \(expCmdSN)" }
        // Damaged bytes may have brought the word that it is over.
        if before.wire.isEnded || before.isRejected || isBlind { return nil }
        if level >= 1, before.wire === wire { return nil }
        return "CmdSN \(number) again, and connection \(before.wire.number), which had it first, is not over"
    }

    /// ExpCmdSN and MaxCmdSN came. What is wrong with how the session goes on.
    func took(_ header: BasicHeaderSegment, at now: Instant) -> String? {
        if isBefore(maxCmdSN, header.maxCmdSN) { maxCmdSN = header.maxCmdSN }
        while isBefore(expCmdSN, header.expCmdSN), isBefore(expCmdSN, nextCmdSN) {
            sent[expCmdSN] = nil
            expCmdSN &+= 1
        }
        guard let waiting = sent[expCmdSN], waiting.wire.isEnded else {
            gap = nil
            return nil
        }
        guard let gap, gap.cmdSN == expCmdSN else {
            gap = (expCmdSN, now)
            return nil
        }
        return now - gap.since > Self.gapLimit ? openGap : nil
    }

    /// More than any recovery may take.
    private static let gapLimit = Duration.seconds(15)

    /// At the end of a session's life: a number of a lost connection that never was filled.
    var openGap: String? {
        // What the target said of the number may have been among what was damaged.
        guard !isBlind, let waiting = sent[expCmdSN], waiting.wire.isEnded else { return nil }
        return "CmdSN \(expCmdSN) was lost with connection \(waiting.wire.number), and nothing fills it"
    }

    private func isBefore(_ left: UInt32, _ right: UInt32) -> Bool { Int32(bitPattern: left &- right) < 0 }

    // MARK: connections

    /// A connection is over at the target. Below level 2 its tasks are, too.
    func end(connectionID: UInt16, except wire: Wire?, at moment: Instant, endsTasks: Bool) {
        for old in wires where old.connectionID == connectionID && old !== wire && !old.isEnded {
            old.isEnded = true
            old.endedAt = moment
        }
        if endsTasks || level < 2 { tasks = tasks.filter { !$0.value.wire.isEnded } }
    }

    // MARK: what reaches the target

    func arrived(_ header: BasicHeaderSegment) {
        guard !header.isImmediate, header.opcode != .dataOut, header.opcode != .snackRequest else { return }
        let number = header.cmdSN
        guard !isBefore(number, arrivedBefore) else { return }
        arrivedLater.insert(number)
        while arrivedLater.remove(arrivedBefore) != nil { arrivedBefore &+= 1 }
    }

    /// A command goes to its logical unit: in the order of CmdSN, over all connections, and once (section 4.2.2.1).
    func reachedUnit(_ number: UInt32, isRead: Bool) -> String? {
        guard !isArrivalBlind else { return nil }
        if !isBefore(number, arrivedBefore) {
            return "command \(number) reached its unit before \(arrivedBefore) reached the target"
        }
        guard atUnit.insert(number).inserted else { return "command \(number) reached its unit twice" }
        guard isRead else { return nil }
        if let last = lastReadAtUnit, !isBefore(last, number) { return "command \(number) reached its unit after \(last)" }
        lastReadAtUnit = number
        return nil
    }
}
