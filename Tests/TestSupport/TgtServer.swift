public import Foundation

/// Why a private tgtd could not be used.
public enum TgtFailure: Error, CustomStringConvertible {
    case tooManyPortals(Int)
    case didNotStart(log: String)
    case doesNotListen(on: LoopbackPortal, log: String)
    case notRunning
    case unexpectedAnswer(String)

    public var description: String {
        switch self {
        case .tooManyPortals(let count): "tgtd takes 1 to 8 portals, not \(count)"
        case .didNotStart(let log): "tgtd did not start:\n\(log)"
        case .doesNotListen(let portal, let log): "tgtd does not listen on \(portal):\n\(log)"
        case .notRunning: "tgtd is not running"
        case .unexpectedAnswer(let text): "tgtadm said something else than expected:\n\(text)"
        }
    }
}

/// A private, real `tgtd`: its own control socket and log, nothing under `/etc` or `/var`, killed when its owner lets
/// go or the tests end in whatever way.
///
/// The methods block their caller for milliseconds (``restart()`` some tens) and may be called from any thread.
public final class TgtServer: Sendable {
    public let configuration: TgtConfiguration
    public var portals: [LoopbackPortal] { configuration.portals }
    public var targetName: String { configuration.targetName }

    private let directory: TemporaryDirectory
    private let process = Locked<ChildProcess?>(nil)

    /// Starts it, and returns once every portal listens and every logical unit is exported.
    /// - Throws: ``MissingTool``, ``TgtFailure``, ``CommandFailure`` with tgtadm's words.
    public init(_ configuration: TgtConfiguration) throws {
        guard (1...8).contains(configuration.portals.count) else {
            throw TgtFailure.tooManyPortals(configuration.portals.count)
        }
        self.configuration = configuration
        directory = try TemporaryDirectory("tgtd")
        try start()
    }

    deinit {
        kill9()
    }

    /// One LUN 1 on a sparse file of its own, on `portalCount` unused loopback addresses.
    public static func withFile(
        byteCount: UInt64 = 64 << 20, portalCount: Int = 4, serial: String = "beef0001",
        targetName: String = "iqn.2026-11.org.example:array-1", in directory: TemporaryDirectory
    ) throws -> TgtServer {
        let unit = TgtConfiguration.LogicalUnit(
            backing: .file(path: directory.file("\(serial).img"), byteCount: byteCount), scsiID: serial, serial: serial)
        return try TgtServer(
            TgtConfiguration(
                portals: LoopbackPortal.unused(count: portalCount), targetName: targetName, logicalUnits: [unit]))
    }

    /// Two processes that export one file under one identity, as the two controllers of an array do. Each has
    /// `portalCount` portals and the same target name.
    public static func dualController(
        byteCount: UInt64 = 64 << 20, portalCount: Int = 2, serial: String = "beef0001",
        targetName: String = "iqn.2026-11.org.example:array-1", in directory: TemporaryDirectory
    ) throws -> (first: TgtServer, second: TgtServer) {
        func controller() throws -> TgtServer {
            try withFile(
                byteCount: byteCount, portalCount: portalCount, serial: serial, targetName: targetName, in: directory)
        }
        return (try controller(), try controller())
    }

    /// `iscsi://` URL of a logical unit, as libiscsi and QEMU take it.
    public func url(portal index: Int = 0, lun: Int = 1) -> String {
        var credentials = ""
        if let account = configuration.incomingAccount { credentials = "\(account.user)%\(account.password)@" }
        var options = ""
        if let account = configuration.outgoingAccount {
            options = "?target_user=\(account.user)&target_password=\(account.password)"
        }
        return "iscsi://\(credentials)\(portals[index])/\(targetName)/\(lun)\(options)"
    }

    // MARK: Life and death

    /// The process while it runs.
    public var processIdentifier: pid_t? {
        process.withLock { $0?.isRunning == true ? $0?.identifier : nil }
    }

    public var isRunning: Bool { processIdentifier != nil }

    /// SIGKILL, and a wait until the last thread is gone: the kernel has then reset or closed every connection, and
    /// the portals refuse.
    public func kill9() {
        process.withLock { process in
            process?.killAndWait()
            process = nil
        }
    }

    /// SIGSTOP: TCP still acknowledges, nothing answers. Returns once every thread stands still.
    /// - Throws: ``TgtFailure/notRunning``.
    public func stop() throws {
        try signal(SIGSTOP)
        try waitFor { $0.state == .stopped }
    }

    /// SIGCONT.
    /// - Throws: ``TgtFailure/notRunning``.
    public func cont() throws {
        try signal(SIGCONT)
        try waitFor { $0.state != .stopped }
    }

    /// Starts it again, after a ``kill9()`` or over a process that still runs, with the same portals and files.
    public func restart() throws {
        kill9()
        try start()
    }

    /// Ends it, as ``kill9()`` does: tgtd has no orderly end while initiators are logged in.
    public func shutdown() {
        kill9()
    }

    /// What tgtd wrote to its standard output and error so far, all its lives together.
    public var log: String { readProcFile(logPath) ?? "" }

    /// Runs `tgtadm` against this server and returns what it printed. It hangs for as long as the server is stopped,
    /// at most 5 seconds.
    @discardableResult
    public func administer(_ arguments: [String]) throws -> String {
        try CommandRunner.requireBlocking(
            "tgtadm", ["-C", "0", "--lld", "iscsi"] + arguments, environment: environment, timeout: .seconds(5)
        ).standardOutput
    }

    private var logPath: String { directory.file("log") }
    private var environment: [String: String] { ["TGT_IPC_SOCKET": directory.file("ipc")] }

    private func signal(_ signal: Int32) throws {
        guard process.withLock({ $0?.isRunning == true && $0?.send(signal: signal) == true }) else {
            throw TgtFailure.notRunning
        }
    }

    private func waitFor(_ condition: (ProcessStat) -> Bool) throws {
        let deadline = ContinuousClock.now + .seconds(5)
        while ContinuousClock.now < deadline {
            guard let identifier = processIdentifier, let stat = ProcessStat(identifier) else {
                throw TgtFailure.notRunning
            }
            if condition(stat) { return }
            usleep(200)
        }
        throw TgtFailure.unexpectedAnswer("the signal changed nothing")
    }

    // MARK: Starting

    private func start() throws {
        do {
            try startProcess()
            try verifyPortals()
            try export()
        } catch {
            kill9()
            throw error
        }
    }

    private func startProcess() throws {
        var iscsi = configuration.portals.map { "portal=\($0)" }
        if let nop = configuration.nop { iscsi += ["nop_interval=\(nop.intervalSeconds)", "nop_count=\(nop.count)"] }
        var program = try Tool.path("tgtd")
        var arguments = ["-f", "-C", "0", "-t", "\(configuration.ioThreadCount)", "--iscsi", iscsi.joined(separator: ",")]
        if let processor = configuration.processor {
            arguments = ["-c", "\(processor)", program] + arguments
            program = try Tool.path("taskset")
        }
        unlink(directory.file("ipc.0"))
        let child = try ChildProcess(
            executable: program, arguments: arguments, environment: environment, standardOutput: .file(logPath),
            standardError: .file(logPath))
        process.withLock { $0 = child }

        let deadline = ContinuousClock.now + .seconds(10)
        while ContinuousClock.now < deadline, child.isRunning {
            // Asking before the socket is there costs a process each time.
            if access(directory.file("ipc.0"), F_OK) == 0,
                (try? administer(["--op", "show", "--mode", "target"])) != nil
            {
                return
            }
            usleep(2_000)
        }
        throw TgtFailure.didNotStart(log: log)
    }

    /// tgtd that cannot bind a portal listens on the wildcard address instead and says nothing.
    private func verifyPortals() throws {
        guard let identifier = processIdentifier else { throw TgtFailure.didNotStart(log: log) }
        let listening = Set(TCPTableEntry.sockets(of: identifier).filter(\.isListening).map(\.local))
        for portal in configuration.portals where !listening.contains(portal) {
            throw TgtFailure.doesNotListen(on: portal, log: log)
        }
    }

    private func export() throws {
        let target = ["--tid", "1"]
        try administer(["--op", "new", "--mode", "target", "-T", configuration.targetName] + target)
        for unit in configuration.logicalUnits { try export(unit) }
        for parameter in configuration.parameters {
            try administer(
                ["--op", "update", "--mode", "target", "--name", parameter.name, "--value", parameter.value] + target)
        }
        try bind(configuration.incomingAccount, options: [])
        try bind(configuration.outgoingAccount, options: ["--outgoing"])
        // Last: until here nobody can log in to a half-made target.
        try administer(["--op", "bind", "--mode", "target", "-I", "ALL"] + target)
    }

    private func export(_ unit: TgtConfiguration.LogicalUnit) throws {
        let (type, path): (String, String)
        switch unit.backing {
        case .file(let file, let byteCount, let engine):
            if access(file, F_OK) != 0 { try makeSparseFile(file, byteCount: byteCount) }
            (type, path) = (engine.rawValue, file)
        case .null: (type, path) = ("null", "/dev/null")
        }
        let address = ["--mode", "logicalunit", "--tid", "1", "--lun", "\(unit.number)"]
        try administer(
            ["--op", "new", "--bstype", type, "-b", path, "--blocksize", "\(unit.blockByteCount)"] + address)
        var parameters = unit.parameters
        if let value = unit.scsiID { parameters.append(("scsi_id", value)) }
        if let value = unit.serial { parameters.append(("scsi_sn", value)) }
        if let value = unit.vendor { parameters.append(("vendor_id", value)) }
        if let value = unit.product { parameters.append(("product_id", value)) }
        guard !parameters.isEmpty else { return }
        let list = parameters.map { "\($0.name)=\($0.value)" }.joined(separator: ",")
        try administer(["--op", "update", "--params", list] + address)
    }

    private func bind(_ account: TgtConfiguration.Account?, options: [String]) throws {
        guard let account else { return }
        let user = ["--mode", "account", "--user", account.user]
        try administer(["--op", "new", "--password", account.password] + user)
        try administer(["--op", "bind", "--tid", "1"] + user + options)
    }
}
