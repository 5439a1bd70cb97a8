public import SCSI

/// What ``Discovery`` found; as JSON what `mpio discover --json` prints. Byte counts are bytes.
public struct DiscoveryReport: Encodable, Sendable {
    /// Of this form; 1.
    public var version = 1
    /// The name under which was asked.
    public var initiator: String
    /// The portals that were asked, with the reason where one gave no answer.
    public var portals: [Portal] = []
    /// The targets that were named, in the order in which they were.
    public var targets: [Target] = []
    /// The units that were found, each once, whichever portals lead to it.
    public var luns: [LUN] = []
    /// Units that give no name by which two paths to them could be known to be the same.
    public var unidentified: [Path] = []

    /// One portal, and whether it answers.
    public struct Portal: Encodable, Hashable, Sendable {
        /// Address and port.
        public var portal: String
        /// The target portal group tag, where it was told.
        public var tpg: Int?
        /// Why it can't be used; nil: it answers.
        public var error: String?

        /// A portal that answers, or does not.
        public init(portal: String, tpg: Int? = nil, error: String? = nil) {
            self.portal = portal
            self.tpg = tpg
            self.error = error
        }

        enum CodingKeys: String, CodingKey {
            case portal, tpg, error
        }

        /// What is not known is null rather than left out.
        public func encode(to encoder: any Encoder) throws {
            var values = encoder.container(keyedBy: CodingKeys.self)
            try values.encode(portal, forKey: .portal)
            try values.encode(tpg, forKey: .tpg)
            try values.encode(error, forKey: .error)
        }
    }

    enum CodingKeys: String, CodingKey {
        case version, initiator, portals, targets, luns, unidentified
    }

    /// A target and the portals that it named.
    public struct Target: Encodable, Hashable, Sendable {
        /// Its iSCSI name.
        public var name: String
        /// In the target's order, each once.
        public var portals: [Portal] = []

        /// A target, as yet without portals.
        public init(name: String) {
            self.name = name
        }
    }

    /// One way to a unit.
    public struct Path: Encodable, Hashable, Sendable {
        /// The portal that leads there.
        public var portal: String
        /// The target's name.
        public var target: String
        /// The unit's number at that target.
        public var lun: Int
    }

    /// One unit.
    public struct LUN: Encodable, Sendable {
        /// What it is known by, as the policy file spells it.
        public var identity: String
        /// The name that the policy file gives it.
        public var name = ""
        /// As INQUIRY gives it.
        public var vendor: String
        /// As INQUIRY gives it.
        public var product: String
        /// As INQUIRY gives it.
        public var revision: String
        /// VPD page 80h; empty where there is none.
        public var serial: String
        /// Its size in bytes.
        public var capacityBytes: UInt64
        /// In bytes.
        public var blockSize: Int
        /// Every way to it that was found.
        public var paths: [Path]
        /// ``identity`` as a value.
        public let logicalUnitIdentity: LogicalUnitIdentity

        enum CodingKeys: String, CodingKey {
            case identity, name, vendor, product, revision, serial, paths
            case capacityBytes = "capacity_bytes"
            case blockSize = "block_size"
        }

        init(_ identity: LogicalUnitIdentity, _ device: DeviceDescription, firstPath: Path) {
            self.identity = identity.description
            logicalUnitIdentity = identity
            vendor = device.vendor
            product = device.product
            revision = device.revision
            serial = device.serial
            capacityBytes = device.capacity
            blockSize = Int(device.blockSize)
            paths = [firstPath]
        }
    }

    init(initiator: String) {
        self.initiator = initiator
    }

    /// For ``PolicyFileWriter``: targets with at least one portal that answers, and their LUNs. `source` is where to connect from, `chap` what
    /// was used to log in, with the secret files as they are to be written.
    public func storage(
        source: SourceAddress? = nil, chap: DiscoveredStorage.CHAP? = nil
    ) -> DiscoveredStorage {
        var storage = DiscoveredStorage(initiatorName: initiator)
        for target in targets {
            var entry = DiscoveredStorage.Target(name: target.name, portals: [])
            entry.chap = chap
            for portal in target.portals {
                guard portal.error == nil, let address = try? PortalAddress(parsing: portal.portal) else {
                    entry.unanswered.append((portal.portal, portal.error ?? "no address"))
                    continue
                }
                let from = source.flatMap { $0.socketAddress.hasSameFamily(as: address.socketAddress) ? $0 : nil }
                entry.portals.append(.init(address: address, source: from))
            }
            if !entry.portals.isEmpty { storage.targets.append(entry) }
        }
        for lun in luns {
            storage.luns.append(
                .init(
                    identity: lun.logicalUnitIdentity, vendor: lun.vendor, product: lun.product,
                    byteCount: lun.capacityBytes, blockSize: lun.blockSize,
                    paths: lun.paths.compactMap { path in
                        (try? PortalAddress(parsing: path.portal)).map { ($0, path.target, path.lun) }
                    }))
        }
        return storage
    }
}
