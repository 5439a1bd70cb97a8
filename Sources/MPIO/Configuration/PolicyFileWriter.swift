public import SCSI

/// What `mpio discover` found, ready to become a policy file.
public struct DiscoveredStorage: Sendable {
    /// For `initiator: {name: …}`; nil: the file names none.
    public var initiatorName: String?
    /// The targets, in the order in which they were found.
    public var targets: [Target]
    /// The units, each once, whichever portals lead to it.
    public var luns: [LUN]

    /// A target that can be logged in to.
    public struct Target: Sendable {
        /// Its iSCSI name.
        public var name: String
        /// Its portals that answer; at least one.
        public var portals: [Portal]
        /// What was used to log in; nil: nothing was asked for.
        public var chap: CHAP?
        /// Portals that the target named and that gave no answer: remarked upon, not used.
        public var unanswered: [(portal: String, reason: String)] = []

        /// A target with its portals.
        public init(name: String, portals: [Portal], chap: CHAP? = nil) {
            self.name = name
            self.portals = portals
            self.chap = chap
        }
    }

    /// The users and files that were used to log in; the files as they are to be written.
    public struct CHAP: Hashable, Sendable {
        /// The initiator's user.
        public var user: String
        /// The file with its secret.
        public var secretFile: String
        /// The target's user; nil where the target is not asked for proof.
        public var mutualUser: String?
        /// The file with the target's secret.
        public var mutualSecretFile: String?

        /// Users, and the files of their secrets as the policy file is to name them.
        public init(user: String, secretFile: String, mutualUser: String? = nil, mutualSecretFile: String? = nil) {
            self.user = user
            self.secretFile = secretFile
            self.mutualUser = mutualUser
            self.mutualSecretFile = mutualSecretFile
        }
    }

    /// One portal, which becomes one path.
    public struct Portal: Hashable, Sendable {
        /// Where it listens.
        public var address: PortalAddress
        /// Where to connect from; nil: as the routing table says.
        public var source: SourceAddress?

        /// A portal.
        public init(address: PortalAddress, source: SourceAddress? = nil) {
            self.address = address
            self.source = source
        }
    }

    /// A unit.
    public struct LUN: Sendable {
        /// What it is known by.
        public var identity: LogicalUnitIdentity
        /// As INQUIRY gives it, for its comment and its name.
        public var vendor: String
        /// As INQUIRY gives it.
        public var product: String
        /// Its size in bytes.
        public var byteCount: UInt64
        /// In bytes.
        public var blockSize: Int
        /// The addresses of the portals that lead to it, with the unit's number there.
        public var paths: [(portal: PortalAddress, target: String, lun: Int)]

        /// A unit, and what leads to it.
        public init(
            identity: LogicalUnitIdentity, vendor: String, product: String, byteCount: UInt64, blockSize: Int,
            paths: [(portal: PortalAddress, target: String, lun: Int)]
        ) {
            self.identity = identity
            self.vendor = vendor
            self.product = product
            self.byteCount = byteCount
            self.blockSize = blockSize
            self.paths = paths
        }
    }

    /// What was found, or nothing yet.
    public init(initiatorName: String? = nil, targets: [Target] = [], luns: [LUN] = []) {
        self.initiatorName = initiatorName
        self.targets = targets
        self.luns = luns
    }
}

/// Writes a policy file that people like to go on with: complete, short, with remarks where a choice is waiting.
public struct PolicyFileWriter {
    /// A writer; it has no state.
    public init() {}

    /// The file's text. ``Configuration/init(yaml:file:folder:)`` reads it back where it names at least one LUN and its
    /// secret files exist.
    public func text(_ storage: DiscoveredStorage) -> String {
        var text = """
            # The storage of this machine as mpio found it.
            # Check it with 'mpio check', look at it with 'mpio paths'.

            initiator:

            """
        if let name = storage.initiatorName {
            text += "  name: \(scalar(name))   # allow this name at the target, where it keeps a list\n"
        } else {
            text.removeLast("initiator:\n".count)
        }
        text += """

            defaults:
              policy: round-robin        # \(listedPolicies)

            targets:

            """
        for target in storage.targets { text += self.target(target) }
        text += "\nluns:\n"
        var names: Set<String> = []
        for lun in storage.luns { text += self.lun(lun, name: Self.name(of: lun, taken: &names)) }
        if storage.luns.isEmpty {
            text += "  []                         # none was found: does the target map any to this initiator's name?\n"
        }
        return text
    }

    /// The names that ``text(_:)`` gives the LUNs, in their order.
    public func names(_ storage: DiscoveredStorage) -> [String] {
        var taken: Set<String> = []
        return storage.luns.map { Self.name(of: $0, taken: &taken) }
    }

    private var listedPolicies: String {
        "or fail-over-only, round-robin-with-subset, least-queue-depth, weighted-paths, least-blocks"
    }

    private func target(_ target: DiscoveredStorage.Target) -> String {
        var text = "  - name: \(scalar(target.name))\n    portals:\n"
        for portal in target.portals {
            text += "      - {address: \(quoted(portal.address.description))"
            text += portal.source.map { ", from: \(quoted($0.description))}\n" } ?? "}\n"
        }
        for (portal, reason) in target.unanswered {
            let words = HumanText.printable(reason).replacing("#", with: " ")
            text += "      # - {address: \(quoted(portal))}   did not answer: \(words)\n"
        }
        if let chap = target.chap {
            text += "    chap: {user: \(quoted(chap.user)), secret-file: \(quoted(chap.secretFile))"
            if let user = chap.mutualUser, let file = chap.mutualSecretFile {
                text += ", mutual-user: \(quoted(user)), mutual-secret-file: \(quoted(file))"
            }
            text += "}\n"
        }
        return text
    }

    private func lun(_ lun: DiscoveredStorage.LUN, name: String) -> String {
        let model = [lun.vendor, lun.product].map { HumanText.printable($0).trimmingSpaces }.filter { !$0.isEmpty }
        let size = "\(HumanText.size(lun.byteCount)), \(lun.blockSize) B blocks"
        var text = "  - name: \(name)\(String(repeating: " ", count: max(1, 20 - name.count)))# \((model + [size]).joined(separator: " "))\n"
        text += "    identity: \(scalar(lun.identity.description))\n"
        text += "    # paths: every portal above that leads to it, equal and primary. To say more:\n    # paths:\n"
        for path in lun.paths { text += "    #   - {portal: \(quoted(path.portal.description)), role: primary, weight: 1}\n" }
        return text
    }

    /// A name that people can type and that `mpio check` accepts: the last word of the target's name and the number.
    private static func name(of lun: DiscoveredStorage.LUN, taken: inout Set<String>) -> String {
        let tail = lun.paths.first?.target.split(whereSeparator: { $0 == ":" || $0 == "." }).last.map(String.init) ?? "disk"
        var base = String(tail.lowercased().filter { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-") }.prefix(40))
        while base.first == "-" { base.removeFirst() }
        if base.isEmpty { base = "disk" }
        let wanted = lun.paths.first.map { "\(base)-\($0.lun)" } ?? base
        var name = wanted
        var number = 2
        while !taken.insert(name).inserted {
            name = "\(wanted)-\(number)"
            number += 1
        }
        return name
    }

    /// As it is where YAML takes it for itself, quoted otherwise.
    private func scalar(_ text: String) -> String {
        let isPlain = text.wholeMatch(of: /[A-Za-z][A-Za-z0-9.:_-]*/) != nil && text.last != ":"
            && !["true", "false", "null", "yes", "no", "on", "off"].contains(text.lowercased())
        return isPlain ? text : quoted(text)
    }

    /// A double-quoted YAML scalar (YAML 1.2 section 7.3.1).
    private func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case " " ... "~": result.unicodeScalars.append(scalar)
            default:
                let digits = String(scalar.value, radix: 16)
                result += "\\U" + String(repeating: "0", count: 8 - digits.count) + digits
            }
        }
        return result + "\""
    }
}

extension String {
    fileprivate var trimmingSpaces: String {
        var text = Substring(self)
        while text.first == " " { text.removeFirst() }
        while text.last == " " { text.removeLast() }
        return String(text)
    }
}
