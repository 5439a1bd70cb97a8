// What `mpio paths --json`, `mpio bench --json` and the control socket say. The JSON names are an
// interface: names may be added, none renamed. Byte counts are bytes, times seconds unless the
// name says otherwise; moments are RFC 3339 texts in UTC.

/// Why the next request of a LUN goes where it goes.
public struct ExplanationReport: Codable, Hashable, Sendable {
    /// The LUN's name.
    public var lun: String
    /// The policy's name.
    public var policy: String
    /// The path that the next request takes; nil where there is none.
    public var next: String?
    /// In words: `least-queue-depth: 10.0.1.10:3260 has 3 outstanding, 10.0.2.10:3260 has 7`.
    public var reason: String
    /// Every path, and why it is taken or not.
    public var paths: [PathReason]
    /// Where the LUN has several lanes, each of which chooses by itself: all of them, in their order. The rest is the first one's.
    public var lanes: [ExplanationReport]?

    /// Why a path is used or not.
    public struct PathReason: Codable, Hashable, Sendable {
        /// The path's name.
        public var id: String
        /// Whether it may carry the next requests.
        public var isUsed: Bool
        /// Why, in words.
        public var reason: String
        /// Since when the path is in its state, in RFC 3339, and for how many seconds.
        public var since: String?
        /// The same in seconds before now.
        public var sinceSeconds: Double?
        /// What is known of the session's nexus; nil for a device.
        public var nexus: NexusProof?
        /// The portals through which its nexus can be reinstated, beside its own; nil for a device.
        public var nexusSharedWith: [String]?
        /// The same in words.
        public var nexusReason: String?

        enum CodingKeys: String, CodingKey {
            case id, reason, since, nexus
            case isUsed = "used"
            case sinceSeconds = "since_s"
            case nexusSharedWith = "nexus_shared_with"
            case nexusReason = "nexus_reason"
        }

        /// A path and its reason.
        public init(id: String, isUsed: Bool, reason: String) {
            self.id = id
            self.isUsed = isUsed
            self.reason = reason
        }
    }

    /// The latest choices, oldest first; where they were asked for.
    public var decisions: [DecisionRecord]?

    /// The latest requests that were retried, re-driven or failed, oldest first; where they were asked for.
    public var incidents: [IncidentRecord]?

    /// One request that did not go as it was meant to.
    public struct IncidentRecord: Codable, Hashable, Sendable {
        /// How long ago, in seconds.
        public var secondsAgo: Double
        /// Which kind of request: `read`, `write`, and others.
        public var request: String
        /// Its first block.
        public var lba: UInt64
        /// How many blocks.
        public var blocks: Int
        /// How often it had been issued.
        public var tries: Int
        /// The path on which it happened.
        public var path: String
        /// `error`, `re-driven`.
        public var kind: String
        /// Why, in words.
        public var reason: String

        enum CodingKeys: String, CodingKey {
            case request, lba, blocks, tries, path, kind, reason
            case secondsAgo = "s_ago"
        }

        /// What happened to one request.
        public init(
            secondsAgo: Double, request: String, lba: UInt64, blocks: Int, tries: Int, path: String, kind: String,
            reason: String
        ) {
            self.secondsAgo = secondsAgo
            self.request = request
            self.lba = lba
            self.blocks = blocks
            self.tries = tries
            self.path = path
            self.kind = kind
            self.reason = reason
        }
    }

    /// One choice of a path that was made.
    public struct DecisionRecord: Codable, Hashable, Sendable {
        /// How long ago, in seconds.
        public var secondsAgo: Double
        /// Which kind of request: `read`, `write`, and others.
        public var request: String
        /// Its first block.
        public var lba: UInt64
        /// How many blocks.
        public var blocks: Int
        /// 1 for the first issue, more for retries and re-drives.
        public var tries: Int
        /// The path that was chosen.
        public var path: String
        /// Why, in words.
        public var reason: String

        enum CodingKeys: String, CodingKey {
            case request, lba, blocks, tries, path, reason
            case secondsAgo = "s_ago"
        }

        /// One choice.
        public init(
            secondsAgo: Double, request: String, lba: UInt64, blocks: Int, tries: Int, path: String, reason: String
        ) {
            self.secondsAgo = secondsAgo
            self.request = request
            self.lba = lba
            self.blocks = blocks
            self.tries = tries
            self.path = path
            self.reason = reason
        }
    }

    /// The next choice and its reasons.
    public init(lun: String, policy: String, next: String?, reason: String, paths: [PathReason]) {
        self.lun = lun
        self.policy = policy
        self.next = next
        self.reason = reason
        self.paths = paths
    }
}
