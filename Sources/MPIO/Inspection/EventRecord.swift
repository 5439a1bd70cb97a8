// What `mpio paths --json`, `mpio bench --json` and the control socket say. The JSON names are an
// interface: names may be added, none renamed. Byte counts are bytes, times seconds unless the
// name says otherwise; moments are RFC 3339 texts in UTC.

/// Something that happened to a LUN or a path.
public struct EventRecord: Codable, Hashable, Sendable {
    /// Counts up by one per event of the holder; a gap means that events were dropped.
    public var serial: UInt64
    /// RFC 3339.
    public var at: String
    /// The LUN's name.
    public var lun: String
    /// The path's name; nil where it is about the LUN.
    public var path: String?
    /// Which kind, from a fixed vocabulary: `path-lost`, `fail-over`, `policy-changed`, ….
    public var kind: String
    /// What happened, in words.
    public var message: String
    /// Who made it happen, where somebody did.
    public var by: ChangeActor?
    /// On which lane of the LUN, from 0; nil where it has one, or where it is about all.
    public var lane: Int?
    /// Requests that were sent again on another path; nil for events that have no such count.
    public var redriven: Int?
    /// At a fail-over or fail-back, for how many milliseconds requests had waited for an answer when they were sent again
    /// (``/Multipath/MultipathEvent/failOver(from:to:redriven:pause:)``); nil for other events.
    public var pauseMilliseconds: Double?

    enum CodingKeys: String, CodingKey {
        case serial, at, lun, path, kind, message, by, lane, redriven
        case pauseMilliseconds = "pause_ms"
    }

    /// An event with its serial.
    public init(
        serial: UInt64, at: String, lun: String, path: String? = nil, kind: String, message: String, by: ChangeActor? = nil
    ) {
        self.by = by
        self.serial = serial
        self.at = at
        self.lun = lun
        self.path = path
        self.kind = kind
        self.message = message
    }
}
