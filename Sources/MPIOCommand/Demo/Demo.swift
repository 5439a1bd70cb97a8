import AsyncIO
import Foundation
import ISCSITarget
import MPIO
import Multipath

/// What `mpio demo` does: a target, a disk over four paths, six policies, a cut.
struct Demo: Sendable {
    /// How long its parts take.
    struct Pace: Sendable {
        var policy: Duration
        /// Before the cut, between cut and repair, and after the path is back.
        var steady: Duration
        var sample: Duration

        static let normal = Pace(policy: .milliseconds(1000), steady: .milliseconds(2200), sample: .milliseconds(100))
        static let fast = Pace(policy: .milliseconds(100), steady: .milliseconds(200), sample: .milliseconds(20))
    }

    /// What became of all requests.
    struct Totals: Sendable {
        var requests: UInt64 = 0
        var redriven: UInt64 = 0
        var lost: UInt64 = 0
        var mismatches: UInt64 = 0
        var longestPauseNanoseconds: UInt64 = 0
        var isBack = false

        var isGood: Bool { lost == 0 && mismatches == 0 && requests > 0 && isBack }

        mutating func add(_ result: BenchResult) {
            // A write that came back wrong is no lost one: count each failure once.
            requests += result.requests + (result.errors - result.mismatches)
            lost += result.errors - result.mismatches
            mismatches += result.mismatches
            longestPauseNanoseconds = max(longestPauseNanoseconds, result.longestPauseNanoseconds)
        }
    }

    var pace: Pace
    var style: TextStyle
    /// Where the picture of the cut goes; nil: nowhere.
    var picture: String?

    static let targetName = "iqn.2026-11.io.mpio:demo"
    static let pathCount = 4
    /// The path that is cut: a primary one.
    static let cutPath = 1
    static let diskByteCount: UInt64 = 64 << 20

    func run() async throws -> Totals {
        let start = ContinuousClock.now
        let text = DemoText(style: style)
        let host = try Self.startTarget()
        do {
            let policy = try Self.policy(host.addresses)
            try StandardOutput.write(text.opening(host.addresses))
            let directory = Self.runtimeDirectory()
            defer { directory.remove() }
            let totals = try await withManager(policy, subcommand: "demo", runtimeDirectory: directory.path) { manager in
                try await show(manager, host, text)
            }
            try StandardOutput.write(text.closing(totals, elapsed: ContinuousClock.now - start))
            if let picture { try StandardOutput.write("  The cut as a picture: \(HumanText.printable(picture))\n") }
            await host.stop(patience: .zero)
            return totals
        } catch {
            await host.stop(patience: .zero)
            throw error
        }
    }

    // MARK: Preparations

    /// Four portals on addresses of the loopback network, in two groups: as an array with two controllers.
    private static func startTarget() throws -> TargetHost {
        var unit = LogicalUnitConfiguration(number: 0, storage: .memory, byteCount: diskByteCount)
        unit.product = "DEMO"
        var failure: (any Error)?
        for _ in 0..<5 {
            let network = "127.\(UInt8.random(in: 16...250)).\(UInt8.random(in: 0...255))"
            let portals = (0..<pathCount).map { index in
                TargetPortalConfiguration(
                    address: SocketAddress(numericHost: "\(network).\(index + 1)", port: 0)!, groupTag: UInt16(1 + index / 2))
            }
            do {
                return try TargetHost(ISCSITarget.TargetConfiguration(name: targetName, portals: portals, logicalUnits: [unit]))
            } catch {
                failure = error
            }
        }
        throw failure!
    }

    /// The policy file that a user would write for it: roles and weights, so that every policy has something to show.
    static func policy(_ addresses: [SocketAddress]) throws -> Configuration {
        let portals = addresses.map { "      - {address: \"\($0)\"}\n" }.joined()
        let paths = addresses.enumerated().map { index, address in
            "      - {portal: \"\(address)\", role: \(index == pathCount - 1 ? "standby" : "primary"), weight: \(pathCount - index)}\n"
        }.joined()
        return try Configuration(
            yaml: """
                initiator: {name: "\(targetName)-initiator"}
                targets:
                  - name: \(targetName)
                    portals:
                \(portals)luns:
                  - name: demo
                    identity: {target: \(targetName), lun: 0}
                    timers: {path-recovery-interval: 250ms, path-recovery-interval-maximum: 1s}
                    paths:
                \(paths)
                """)
    }

    private struct RunDirectory {
        var path: String
        var isTemporary: Bool
        func remove() { if isTemporary { try? FileManager.default.removeItem(atPath: path) } }
    }

    /// Where `mpio paths` in another terminal finds the demo; a folder of its own where that one can't be used.
    private static func runtimeDirectory() -> RunDirectory {
        let path = RuntimeDirectory.defaultPath()
        if (try? RuntimeDirectory.prepare(path)) != nil, access(path, W_OK) == 0 { return RunDirectory(path: path, isTemporary: false) }
        guard let folder = try? TemporaryFolder(prefix: "mpio-demo") else { return RunDirectory(path: path, isTemporary: false) }
        return RunDirectory(path: folder.path, isTemporary: true)
    }

    // MARK: The show

    private func show(_ manager: PathManager, _ host: TargetHost, _ text: DemoText) async throws -> Totals {
        let disk = try await manager.open("demo")
        try StandardOutput.write(text.heading(1, "One disk, four paths") + text.table(await manager.report()))
        var totals = Totals()
        try StandardOutput.write(text.heading(2, "Six policies: every block written is read back and compared"))
        for kind in PolicyKind.allCases { try await showPolicy(kind, disk, text, &totals) }
        try await showCut(disk, manager, host, text, &totals)
        totals.redriven = try await disk.redrivenCount
        return totals
    }

    private func plan(_ disk: MultipathDisk) -> BenchPlan {
        BenchPlan(
            isWrite: true, isVerified: true, blockSize: 4096, depth: 32, isSequential: false,
            blockCount: disk.capacityByteCount / 4096)
    }

    private func showPolicy(_ kind: PolicyKind, _ disk: MultipathDisk, _ text: DemoText, _ totals: inout Totals) async throws {
        try await disk.setPolicy(kind)
        let before = try await disk.status
        let result = try await BenchRun(plan: plan(disk), disk: disk).measure(for: pace.policy)
        totals.add(result)
        try Task.checkCancellation()
        let paths = BenchResult.difference(before: before, after: try await disk.status)
        try StandardOutput.write(text.policy(kind, result, paths))
    }

    private func showCut(
        _ disk: MultipathDisk, _ manager: PathManager, _ host: TargetHost, _ text: DemoText, _ totals: inout Totals
    ) async throws {
        try await disk.setPolicy(.roundRobinWithSubset)
        let cut = host.addresses[Self.cutPath].description
        try StandardOutput.write(
            text.heading(3, "A path is cut under load (round-robin-with-subset: \(Self.pathCount - 1) primaries, 1 standby)"))
        let chronicle = Chronicle(disk)
        defer { chronicle.end() }
        let recording = picture.map { _ in DemoRecording(disk) }
        defer { recording?.end() }
        let run = BenchRun(plan: plan(disk), disk: disk)
        // The load ends when it is told to; the time is only a bound.
        async let load = run.measure(for: .seconds(120))
        var curve = Curve(sample: pace.sample)
        try await curve.follow(disk, for: pace.steady)
        curve.mark("cut")
        chronicle.begin()
        try host.setPortal(Self.cutPath, enabled: false)
        try await curve.follow(disk, for: pace.steady)
        try StandardOutput.write(text.cut(cut, chronicle.take()) + text.table(await manager.report()))
        curve.mark("mended")
        chronicle.begin()
        try host.setPortal(Self.cutPath, enabled: true)
        totals.isBack = try await curve.follow(disk, atMost: .seconds(15)) { lun in
            lun.state == .optimal && lun.paths.allSatisfy { $0.state.isUsable }
        }
        curve.mark("back")
        try await curve.follow(disk, for: pace.steady)
        try StandardOutput.write(text.mended(cut, totals.isBack, chronicle.take()) + text.table(await manager.report()))
        let history = await recording?.history()
        run.stop()
        let result = try await load
        totals.add(result)
        try Task.checkCancellation()
        try StandardOutput.write(text.curve(curve))
        guard let picture, let history else { return }
        guard let model = PlotModel(history) else { throw CommandFailure("there are too few samples for a picture") }
        try PictureFile.write(PlotDrawing.svg(model), to: picture)
    }
}

/// Requests done in each interval, with remarks at some of them.
struct Curve: Sendable {
    let sample: Duration
    private(set) var counts: [UInt64] = []
    private(set) var marks: [(place: Int, text: String)] = []
    private var last: (total: UInt64, at: ContinuousClock.Instant)?

    init(sample: Duration) {
        self.sample = sample
    }

    mutating func mark(_ text: String) { marks.append((counts.count, text)) }

    /// The first one only begins. An interval that came out longer or shorter (tables were printed, the machine was
    /// busy) counts by its rate.
    mutating func add(total: UInt64, at now: ContinuousClock.Instant = .now) {
        defer { last = (total, now) }
        guard let last, now > last.at else { return }
        counts.append(UInt64(Double(total &- min(total, last.total)) * (sample / (now - last.at))))
    }

    mutating func follow(_ disk: MultipathDisk, for duration: Duration) async throws {
        _ = try await follow(disk, atMost: duration) { _ in false }
    }

    /// Samples until the condition holds; false where it did not in time.
    mutating func follow(
        _ disk: MultipathDisk, atMost duration: Duration, until isReached: (LUNSnapshot) -> Bool
    ) async throws -> Bool {
        let end = ContinuousClock.now + duration
        while true {
            try await Task.sleep(for: sample)
            let status = try await disk.status
            add(total: status.paths.reduce(0) { $0 + $1.requests })
            if isReached(status) { return true }
            if ContinuousClock.now >= end { return false }
        }
    }
}

/// What happens to the disk, noted with the time since something was done to it.
final class Chronicle: @unchecked Sendable {
    private let lock = NSLock()
    private var start = Date()
    private var notes: [(seconds: Double, text: String)] = []
    private var reader: Task<Void, Never>?

    init(_ disk: MultipathDisk) {
        let events = disk.events
        reader = Task { [weak self] in
            for await event in events { self?.note(event) }
        }
    }

    private func note(_ event: DiskEvent) {
        let text = event.description
        lock.withLock {
            // What is tried again and again is told once.
            guard !notes.contains(where: { $0.text == text }) else { return }
            notes.append((event.at.timeIntervalSince(start), text))
        }
    }

    /// Forgets what was; time counts from now.
    func begin() {
        lock.withLock {
            start = Date()
            notes = []
        }
    }

    func take() -> [(seconds: Double, text: String)] { lock.withLock { notes } }
    func end() { reader?.cancel() }
}
