// The control socket's language: one JSON object per line each way, a request and then its response. Names are an
// interface as those of the reports are.

import Multipath

/// What a client asks of the process that holds LUNs.
public enum ControlRequest: Hashable, Sendable {
    /// Who holds what.
    case identify
    /// The state of these LUNs, by name or identity; of all where the list is empty.
    case paths(luns: [String])
    /// The same, with each path's ``LatencyCounts`` and the moment of each LUN's look: for who asks many times a second.
    case sample(luns: [String])
    /// The LUN's policy and its options.
    case policy(lun: String)
    /// Another policy (nil: the same), with options by their names in the policy file.
    case setPolicy(lun: String, policy: String?, options: [String: String] = [:])
    /// The connection policy of the session that is the LUN's path of this name.
    case connectionPolicy(lun: String, path: String)
    /// Another connection policy (nil: the same); it applies to every LUN of the session.
    case setConnectionPolicy(lun: String, path: String, policy: String?, options: [String: String] = [:])
    /// Take a path out of use, or back.
    case path(PathAction, lun: String, path: String)
    /// The same for one connection of the path's session, by its number in the policy file's order, from 1.
    case connection(PathAction, lun: String, path: String, number: Int)
    /// Why requests go where they go; with the last so many decisions where asked.
    case explain(lun: String, last: Int?)
    /// Events with a serial over `after`, oldest first; all that are kept (the last 2,048) where nil. To follow, ask again.
    case events(after: UInt64?)
    /// OpenMetrics text.
    case metrics
    /// Take over the policy file, or another one; where `expecting` is not nil only if that is still its fingerprint.
    /// A dry run only tells what would change.
    case reload(file: String?, expecting: String? = nil, isDryRun: Bool)
    /// A change of one LUN's paths. A policy is changed by `setPolicy`.
    case edit(ConfigurationEdit)

    /// Whether it may change something, so that it matters who asks.
    var isChange: Bool {
        switch self {
        case .identify, .paths, .sample, .policy, .connectionPolicy, .explain, .events, .metrics: false
        case .setPolicy, .setConnectionPolicy, .path, .connection, .reload, .edit: true
        }
    }

    /// What can be done to a path or a connection by hand.
    public enum PathAction: String, Codable, Hashable, Sendable, CaseIterable {
        /// Take it out now; its requests go elsewhere.
        case fail
        /// Take it back, once it is verified.
        case restore
        /// Give it no new requests and let the old ones finish.
        case drain
    }
}

/// What the process that holds LUNs answers.
public enum ControlResponse: Hashable, Sendable {
    /// To `identify`.
    case holder(HolderReport)
    /// To `paths`.
    case paths(PathsReport)
    /// To `policy` and `connectionPolicy`.
    case policy(PolicyReport)
    /// To `explain`.
    case explanation(ExplanationReport)
    /// `next` is what to give as `after` next time.
    case events([EventRecord], next: UInt64)
    /// To `metrics`.
    case metrics(String)
    /// What was, or would be, changed.
    case changes(ChangesReport)
    /// A change was made; in words.
    case done(String)
    /// It was not done; nothing was changed.
    case failed(ControlFailure)
}

/// Who holds which LUNs.
public struct HolderReport: Codable, Hashable, Sendable {
    /// The process.
    public var pid: Int32
    /// What it was started as.
    public var command: String
    /// The names of the LUNs that it has open.
    public var luns: [String]
    /// The absolute name of the policy file that it was started with.
    public var policyFile: String?

    enum CodingKeys: String, CodingKey {
        case pid, command, luns
        case policyFile = "policy_file"
    }

    /// A process and its LUNs.
    public init(pid: Int32, command: String, luns: [String], policyFile: String? = nil) {
        self.pid = pid
        self.command = command
        self.luns = luns
        self.policyFile = policyFile
    }
}

/// What a change of the configuration comes to.
public struct ChangesReport: Codable, Hashable, Sendable {
    /// The file that was read; nil for a change by hand.
    public var file: String?
    /// Of the file's bytes.
    public var fingerprint: String?
    /// False for a dry run.
    public var isApplied: Bool
    /// What differs; empty: nothing.
    public var changes: [ConfigurationChange]

    enum CodingKeys: String, CodingKey {
        case file, fingerprint, changes
        case isApplied = "applied"
    }

    /// What a file or a change by hand comes to.
    public init(file: String? = nil, fingerprint: String? = nil, isApplied: Bool, changes: [ConfigurationChange]) {
        self.file = file
        self.fingerprint = fingerprint
        self.isApplied = isApplied
        self.changes = changes
    }
}

/// A LUN's policy, or that of a session's connections.
public struct PolicyReport: Codable, Hashable, Sendable {
    /// The LUN's name.
    public var lun: String
    /// The policy's name, as in the policy file.
    public var policy: String
    /// The policy's options as the policy file spells them.
    public var options: [String: String]
    /// The path whose session's connections it chooses among; nil for the LUN's own policy.
    public var session: String?

    /// A policy with its options.
    public init(lun: String, policy: String, options: [String: String] = [:], session: String? = nil) {
        self.lun = lun
        self.policy = policy
        self.options = options
        self.session = session
    }
}

/// Why a request was not done.
public struct ControlFailure: Error, Codable, Hashable, Sendable, CustomStringConvertible {
    /// Which kind, for programs.
    public var code: Code
    /// The reason, for people.
    public var message: String
    /// With ``Code/badPolicyFile``: each mistake, as `FILE:LINE:COLUMN: …`.
    public var mistakes: [String]?

    /// The kinds of failure; their spelling is an interface.
    public enum Code: String, Codable, Hashable, Sendable {
        /// The policy file has mistakes.
        case badPolicyFile = "bad-policy-file"
        /// The line is no request.
        case malformed
        /// The line is longer than ``ControlServer/maximumLineByteCount``.
        case tooLong = "too-long"
        /// No LUN of this name or identity is open.
        case noSuchLUN = "no-such-lun"
        /// The LUN has no such path, or the session no such connection.
        case noSuchPath = "no-such-path"
        /// What is asked for can't be, as things are.
        case invalid
        /// It can't be done now: the process is ending, or does not offer it.
        case unavailable
    }

    /// A failure of a kind, with its reason.
    public init(_ code: Code, _ message: String, mistakes: [String]? = nil) {
        self.code = code
        self.message = message
        self.mistakes = mistakes
    }

    public var description: String { message }
}

/// Answers what clients ask. Called on the control server's thread, one request at a time.
public protocol ControlHandler: AnyObject, Sendable {
    /// Answers one request.
    func handle(_ request: ControlRequest) -> ControlResponse
    /// The same; `actor` is who asks, where the request may change something.
    func handle(_ request: ControlRequest, from actor: ChangeActor?) -> ControlResponse
}

extension ControlHandler {
    /// For handlers that do not mind who asks.
    public func handle(_ request: ControlRequest, from actor: ChangeActor?) -> ControlResponse { handle(request) }
}

// MARK: The wire form

extension ControlRequest: Codable {
    private enum Keys: String, CodingKey {
        case request, luns, lun, policy, options, action, path, number, last, after, file, expecting, role, weight
        case isDryRun = "dry-run"
        case newPath = "new-path"
    }

    private enum Kind: String, Codable {
        case identify, paths, sample, policy, path, connection, explain, events, metrics, reload
        case setPath = "set-path"
        case addPath = "add-path"
        case removePath = "remove-path"
        case setPolicy = "set-policy"
        case connectionPolicy = "connection-policy"
        case setConnectionPolicy = "set-connection-policy"
    }

    public init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: Keys.self)
        switch try values.decode(Kind.self, forKey: .request) {
        case .identify: self = .identify
        case .paths: self = .paths(luns: try values.decodeIfPresent([String].self, forKey: .luns) ?? [])
        case .sample: self = .sample(luns: try values.decodeIfPresent([String].self, forKey: .luns) ?? [])
        case .policy: self = .policy(lun: try values.decode(String.self, forKey: .lun))
        case .setPolicy:
            self = .setPolicy(
                lun: try values.decode(String.self, forKey: .lun),
                policy: try values.decodeIfPresent(String.self, forKey: .policy),
                options: try values.decodeIfPresent([String: String].self, forKey: .options) ?? [:])
        case .connectionPolicy:
            self = .connectionPolicy(
                lun: try values.decode(String.self, forKey: .lun), path: try values.decode(String.self, forKey: .path))
        case .setConnectionPolicy:
            self = .setConnectionPolicy(
                lun: try values.decode(String.self, forKey: .lun), path: try values.decode(String.self, forKey: .path),
                policy: try values.decodeIfPresent(String.self, forKey: .policy),
                options: try values.decodeIfPresent([String: String].self, forKey: .options) ?? [:])
        case .path:
            self = .path(
                try values.decode(PathAction.self, forKey: .action), lun: try values.decode(String.self, forKey: .lun),
                path: try values.decode(String.self, forKey: .path))
        case .connection:
            self = .connection(
                try values.decode(PathAction.self, forKey: .action), lun: try values.decode(String.self, forKey: .lun),
                path: try values.decode(String.self, forKey: .path), number: try values.decode(Int.self, forKey: .number))
        case .explain:
            self = .explain(
                lun: try values.decode(String.self, forKey: .lun), last: try values.decodeIfPresent(Int.self, forKey: .last))
        case .events: self = .events(after: try values.decodeIfPresent(UInt64.self, forKey: .after))
        case .metrics: self = .metrics
        case .reload:
            self = .reload(
                file: try values.decodeIfPresent(String.self, forKey: .file),
                expecting: try values.decodeIfPresent(String.self, forKey: .expecting),
                isDryRun: try values.decode(Bool.self, forKey: .isDryRun))
        case .setPath, .addPath, .removePath: self = .edit(try Self.edit(from: values))
        }
    }

    private static func edit(from values: KeyedDecodingContainer<Keys>) throws -> ConfigurationEdit {
        let lun = try values.decode(String.self, forKey: .lun)
        switch try values.decode(Kind.self, forKey: .request) {
        case .addPath: return .addPath(lun: lun, try values.decode(ConfigurationEdit.NewPath.self, forKey: .newPath))
        case .removePath: return .removePath(lun: lun, path: try values.decode(String.self, forKey: .path))
        default:
            let role = try values.decodeIfPresent(String.self, forKey: .role)
            if let role, PathRole(rawValue: role) == nil {
                throw DecodingError.dataCorruptedError(forKey: .role, in: values, debugDescription: "no role")
            }
            return .setPath(
                lun: lun, path: try values.decode(String.self, forKey: .path), role: role.flatMap(PathRole.init),
                weight: try values.decodeIfPresent(UInt16.self, forKey: .weight))
        }
    }

    public func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: Keys.self)
        switch self {
        case .identify: try values.encode(Kind.identify, forKey: .request)
        case .paths(let luns):
            try values.encode(Kind.paths, forKey: .request)
            try values.encode(luns, forKey: .luns)
        case .sample(let luns):
            try values.encode(Kind.sample, forKey: .request)
            try values.encode(luns, forKey: .luns)
        case .policy(let lun):
            try values.encode(Kind.policy, forKey: .request)
            try values.encode(lun, forKey: .lun)
        case .setPolicy(let lun, let policy, let options):
            try values.encode(Kind.setPolicy, forKey: .request)
            try values.encode(lun, forKey: .lun)
            try values.encodeIfPresent(policy, forKey: .policy)
            if !options.isEmpty { try values.encode(options, forKey: .options) }
        case .connectionPolicy(let lun, let path):
            try values.encode(Kind.connectionPolicy, forKey: .request)
            try values.encode(lun, forKey: .lun)
            try values.encode(path, forKey: .path)
        case .setConnectionPolicy(let lun, let path, let policy, let options):
            try values.encode(Kind.setConnectionPolicy, forKey: .request)
            try values.encode(lun, forKey: .lun)
            try values.encode(path, forKey: .path)
            try values.encodeIfPresent(policy, forKey: .policy)
            if !options.isEmpty { try values.encode(options, forKey: .options) }
        case .path(let action, let lun, let path):
            try values.encode(Kind.path, forKey: .request)
            try values.encode(action, forKey: .action)
            try values.encode(lun, forKey: .lun)
            try values.encode(path, forKey: .path)
        case .connection(let action, let lun, let path, let number):
            try values.encode(Kind.connection, forKey: .request)
            try values.encode(action, forKey: .action)
            try values.encode(lun, forKey: .lun)
            try values.encode(path, forKey: .path)
            try values.encode(number, forKey: .number)
        case .explain(let lun, let last):
            try values.encode(Kind.explain, forKey: .request)
            try values.encode(lun, forKey: .lun)
            try values.encodeIfPresent(last, forKey: .last)
        case .events(let after):
            try values.encode(Kind.events, forKey: .request)
            try values.encodeIfPresent(after, forKey: .after)
        case .metrics: try values.encode(Kind.metrics, forKey: .request)
        case .reload(let file, let expecting, let isDryRun):
            try values.encode(Kind.reload, forKey: .request)
            try values.encodeIfPresent(file, forKey: .file)
            try values.encodeIfPresent(expecting, forKey: .expecting)
            try values.encode(isDryRun, forKey: .isDryRun)
        case .edit(let edit): try Self.encode(edit, to: &values)
        }
    }

    private static func encode(_ edit: ConfigurationEdit, to values: inout KeyedEncodingContainer<Keys>) throws {
        try values.encode(edit.lun, forKey: .lun)
        switch edit {
        case .policy(_, let policy, let options):
            try values.encode(Kind.setPolicy, forKey: .request)
            try values.encodeIfPresent(policy, forKey: .policy)
            if !options.isEmpty { try values.encode(options, forKey: .options) }
        case .setPath(_, let path, let role, let weight):
            try values.encode(Kind.setPath, forKey: .request)
            try values.encode(path, forKey: .path)
            try values.encodeIfPresent(role?.rawValue, forKey: .role)
            try values.encodeIfPresent(weight, forKey: .weight)
        case .addPath(_, let path):
            try values.encode(Kind.addPath, forKey: .request)
            try values.encode(path, forKey: .newPath)
        case .removePath(_, let path):
            try values.encode(Kind.removePath, forKey: .request)
            try values.encode(path, forKey: .path)
        }
    }
}

extension ControlResponse: Codable {
    private enum Keys: String, CodingKey {
        case holder, paths, policy, explanation, events, next, metrics, changes, done, error
    }

    public init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: Keys.self)
        if let value = try values.decodeIfPresent(ControlFailure.self, forKey: .error) { self = .failed(value) }
        else if let value = try values.decodeIfPresent(HolderReport.self, forKey: .holder) { self = .holder(value) }
        else if let value = try values.decodeIfPresent(PathsReport.self, forKey: .paths) { self = .paths(value) }
        else if let value = try values.decodeIfPresent(PolicyReport.self, forKey: .policy) { self = .policy(value) }
        else if let value = try values.decodeIfPresent(ExplanationReport.self, forKey: .explanation) { self = .explanation(value) }
        else if let value = try values.decodeIfPresent([EventRecord].self, forKey: .events) {
            self = .events(value, next: try values.decode(UInt64.self, forKey: .next))
        } else if let value = try values.decodeIfPresent(String.self, forKey: .metrics) { self = .metrics(value) }
        else if let value = try values.decodeIfPresent(ChangesReport.self, forKey: .changes) { self = .changes(value) }
        else { self = .done(try values.decode(String.self, forKey: .done)) }
    }

    public func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: Keys.self)
        switch self {
        case .holder(let value): try values.encode(value, forKey: .holder)
        case .paths(let value): try values.encode(value, forKey: .paths)
        case .policy(let value): try values.encode(value, forKey: .policy)
        case .explanation(let value): try values.encode(value, forKey: .explanation)
        case .events(let value, let next):
            try values.encode(value, forKey: .events)
            try values.encode(next, forKey: .next)
        case .metrics(let value): try values.encode(value, forKey: .metrics)
        case .changes(let value): try values.encode(value, forKey: .changes)
        case .done(let value): try values.encode(value, forKey: .done)
        case .failed(let value): try values.encode(value, forKey: .error)
        }
    }
}
