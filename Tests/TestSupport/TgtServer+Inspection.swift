/// What one session asked of one logical unit, counted by tgtd.
public struct TgtSessionStatistic: Hashable, Sendable {
    public var session: Int
    public var lun: Int
    public var readByteCount: UInt64
    /// Commands that are not writes count as reads: INQUIRY, TEST UNIT READY, … of the login too.
    public var readCommandCount: UInt64
    public var writeByteCount: UInt64
    public var writeCommandCount: UInt64
    public var errorCount: UInt64
}

/// A session as tgtd sees it.
public struct TgtSession: Hashable, Sendable {
    public var session: Int
    public var initiatorName: String
    /// The addresses that its connections come from, without port.
    public var peerAddresses: [String]
}

extension TgtServer {
    /// The sessions that are logged in, by tgtd's own number.
    /// - Throws: ``TgtFailure``, ``CommandFailure``.
    public func sessions() throws -> [TgtSession] {
        let text = try administer(["--op", "show", "--mode", "target"])
        var sessions: [TgtSession] = []
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 1).map { $0.trimming() }
            guard parts.count == 2 else { continue }
            switch parts[0] {
            case "I_T nexus":
                guard let number = Int(parts[1]) else { throw TgtFailure.unexpectedAnswer(text) }
                sessions.append(TgtSession(session: number, initiatorName: "", peerAddresses: []))
            case "Initiator" where !sessions.isEmpty:
                let name = parts[1].split(separator: " ").first ?? ""
                sessions[sessions.count - 1].initiatorName = String(name)
            case "IP Address" where !sessions.isEmpty:
                sessions[sessions.count - 1].peerAddresses.append(parts[1])
            default: continue
            }
        }
        return sessions
    }

    /// What each session asked of each logical unit since it logged in. A session that ended takes its counts along.
    /// - Throws: ``TgtFailure``, ``CommandFailure``.
    public func statistics() throws -> [TgtSessionStatistic] {
        let text = try administer(["--op", "stat", "--mode", "target", "--tid", "1"])
        // tgt lun sid rd_subm(bytes,cmds) rd_done(bytes,cmds) wr_subm(bytes,cmds) wr_done(bytes,cmds) errs
        return try text.split(separator: "\n").dropFirst().map { line in
            let numbers = line.split(separator: " ").compactMap { UInt64($0) }
            guard numbers.count == 12 else { throw TgtFailure.unexpectedAnswer(text) }
            return TgtSessionStatistic(
                session: Int(numbers[2]), lun: Int(numbers[1]), readByteCount: numbers[5],
                readCommandCount: numbers[6], writeByteCount: numbers[9], writeCommandCount: numbers[10],
                errorCount: numbers[11])
        }
    }

    /// The same by the address that the session came from: where each path has a source address of its own, the
    /// counts of each path at the target's side. Sessions from one address are added up.
    public func statisticsByPeer(lun: Int = 1) throws -> [String: TgtSessionStatistic] {
        let peers = Dictionary(
            try sessions().map { ($0.session, $0.peerAddresses.first ?? "") }, uniquingKeysWith: { first, _ in first })
        var result: [String: TgtSessionStatistic] = [:]
        for statistic in try statistics() where statistic.lun == lun {
            guard let peer = peers[statistic.session] else { continue }
            result[peer, default: TgtSessionStatistic(session: statistic.session, lun: lun)].add(statistic)
        }
        return result
    }

    /// The established TCP connections by portal, as the kernel has them; they survive a SIGSTOP.
    /// - Throws: ``TgtFailure/notRunning``.
    public func connections() throws -> [LoopbackPortal: [LoopbackPortal]] {
        guard let identifier = processIdentifier else { throw TgtFailure.notRunning }
        let established = TCPTableEntry.sockets(of: identifier).filter(\.isEstablished)
        return Dictionary(grouping: established, by: \.local).mapValues { $0.map(\.remote) }
    }
}

extension TgtSessionStatistic {
    fileprivate init(session: Int, lun: Int) {
        self.init(
            session: session, lun: lun, readByteCount: 0, readCommandCount: 0, writeByteCount: 0, writeCommandCount: 0,
            errorCount: 0)
    }

    fileprivate mutating func add(_ other: TgtSessionStatistic) {
        readByteCount += other.readByteCount
        readCommandCount += other.readCommandCount
        writeByteCount += other.writeByteCount
        writeCommandCount += other.writeCommandCount
        errorCount += other.errorCount
    }
}

extension Substring {
    fileprivate func trimming() -> String {
        let start = drop { $0.isWhitespace }
        guard let last = start.lastIndex(where: { !$0.isWhitespace }) else { return "" }
        return String(start[...last])
    }
}
