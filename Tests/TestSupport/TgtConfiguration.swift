/// What one private `tgtd` exports: one target, on several portals, with its logical units.
public struct TgtConfiguration: Sendable {
    /// What holds a logical unit's blocks.
    public enum Backing: Sendable {
        /// A file, made sparse with this size where it does not exist; tgtd's `rdwr` (a pool of threads) or `aio`.
        case file(path: String, byteCount: UInt64, engine: FileEngine = .readWrite)
        /// Reads of anything, writes into nothing; 1 TiB. For benchmarks.
        case null
    }

    public enum FileEngine: String, Sendable {
        case readWrite = "rdwr"
        case asynchronous = "aio"
    }

    public struct LogicalUnit: Sendable {
        /// From 1; tgtd keeps LUN 0 for its controller.
        public var number: Int
        public var backing: Backing
        public var blockByteCount: Int
        /// The T10 vendor identification of VPD page 83h.
        public var scsiID: String?
        /// The unit serial number of page 80h, and the NAA 6 designator of page 83h, which tgtd makes of its hexadecimal
        /// digits: two servers that give the same are one LUN to an initiator. Other characters count as 0 there, so
        /// that `LUNX` and `LUNY` would be one; only hexadecimal digits are allowed here, 32 at most.
        public var serial: String?
        public var vendor: String?
        public var product: String?
        /// tgtd's other parameters: `readonly`, `thin_provisioning`, `online`, `removable`, …
        public var parameters: [(name: String, value: String)]

        public init(
            number: Int = 1, backing: Backing, blockByteCount: Int = 512, scsiID: String? = nil, serial: String? = nil,
            vendor: String? = nil, product: String? = nil, parameters: [(name: String, value: String)] = []
        ) {
            precondition(
                serial.map { (1...32).contains($0.utf8.count) && $0.allSatisfy(\.isHexDigit) } ?? true,
                "a serial has 1 to 32 hexadecimal digits")
            self.number = number
            self.backing = backing
            self.blockByteCount = blockByteCount
            self.scsiID = scsiID
            self.serial = serial
            self.vendor = vendor
            self.product = product
            self.parameters = parameters
        }
    }

    public struct Account: Sendable {
        public var user: String
        public var password: String

        public init(user: String, password: String) {
            self.user = user
            self.password = password
        }
    }

    /// At most 8: tgtd keeps its listening sockets in an array of 8 and writes past it.
    public var portals: [LoopbackPortal]
    public var targetName: String
    public var logicalUnits: [LogicalUnit]
    /// What the initiator must prove (one-way CHAP).
    public var incomingAccount: Account?
    /// What the target proves in return (mutual CHAP); only together with `incomingAccount`.
    public var outgoingAccount: Account?
    /// iSCSI parameters by RFC 7143 name, and tgtd's own (`RedirectAddress`, `RedirectPort`, `RedirectReason`), set in
    /// this order: `("HeaderDigest", "CRC32C")`, `("MaxConnections", "4")`, `("InitialR2T", "No")`, …
    public var parameters: [(name: String, value: String)]
    /// Threads per logical unit of engine `rdwr`.
    public var ioThreadCount: Int
    /// NOP-Ins of tgtd's own: every so many seconds, connection dropped after so many unanswered.
    public var nop: (intervalSeconds: Int, count: Int)?
    /// The processor to run on, for benchmarks.
    public var processor: Int?

    public init(
        portals: [LoopbackPortal], targetName: String = "iqn.2026-11.org.example:array-1",
        logicalUnits: [LogicalUnit], parameters: [(name: String, value: String)] = [], ioThreadCount: Int = 4
    ) {
        self.portals = portals
        self.targetName = targetName
        self.logicalUnits = logicalUnits
        self.parameters = parameters
        self.ioThreadCount = ioThreadCount
    }
}
