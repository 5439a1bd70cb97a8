/// What the contenders are asked to do, all of them the same.
struct Load: Hashable, Codable {
    var sessionCount = 4
    /// Requests outstanding over all sessions.
    var depth = 32
    var blockByteCount = 4096
    /// 0 reads only, 100 writes only.
    var writePercent = 0
    var isSequential = false
    var digests = Digests.none
    /// Requests that our round robin gives to one path before the next.
    var switchAfter = 1
    var seconds = 3.0
    /// Before it counts.
    var rampSeconds = 0.5

    var words: String {
        let kind = isSequential ? "sequential" : "random"
        let digested = digests == .none ? "" : ", CRC32C of \(digests.words)"
        return "\(blockByteCount)-byte \(kind) requests, \(writePercent)% writes, depth \(depth) over "
            + "\(sessionCount) session\(sessionCount == 1 ? "" : "s")\(digested)"
    }
}

/// CRC32C digests that all sessions use.
enum Digests: String, Codable, CaseIterable {
    case none, header, data
    case both = "header,data"

    var header: Bool { self == .header || self == .both }
    var data: Bool { self == .data || self == .both }
    var words: String { self == .both ? "header and data" : rawValue }
}

/// What serves the blocks.
enum TargetKind: String, Codable, CaseIterable {
    case tgtdNull = "tgtd-null"
    case tgtdFile = "tgtd-file"
    case embedded

    var words: String {
        switch self {
        case .tgtdNull: "tgtd, null LUN"
        case .tgtdFile: "tgtd, a file in memory"
        case .embedded: "mpio target, null LUN"
        }
    }
}
