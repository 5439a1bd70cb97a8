import Foundation
import Logging
import MPIO

/// Keeps LUNs open until its task is cancelled: opens them, tells how they are, and takes over the policy file on SIGHUP.
struct HoldService: Sendable {
    let manager: PathManager
    /// The LUNs to hold; empty: all that are configured, also those that a reload adds.
    let names: [String]
    let logger: Logger
    let service: ServiceManager
    let exporter: NBDExporter

    func run() async {
        let configurations = manager.configurations
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.reloadOnHangUp() }
            group.addTask { await self.tellStatus() }
            let first = OpeningCount()
            var held: Set<String> = []
            for name in wanted(manager.configuration) where held.insert(name).inserted {
                await first.expect()
                group.addTask { await self.hold(name) { await first.tried() } }
            }
            group.addTask {
                await first.whenDone()
                self.service.ready()
            }
            for await configuration in configurations {
                let wanted = wanted(configuration)
                held.formIntersection(wanted)
                for name in wanted where held.insert(name).inserted { group.addTask { await self.hold(name) {} } }
            }
            group.cancelAll()
        }
    }

    private func wanted(_ configuration: Configuration) -> [String] {
        names.isEmpty ? configuration.luns.map(\.name) : names.filter { configuration.lun(named: $0) != nil }
    }

    // MARK: LUNs

    /// Returns when the task is cancelled, or the LUN is configured no more.
    private func hold(_ name: String, tried: @Sendable () async -> Void) async {
        var complaint = ""
        var isFirst = true
        while !Task.isCancelled {
            do throws(PathManagerError) {
                // A reload gives up what is merely held; what is exported has users.
                let disk = exporter.isExporting ? try await manager.open(name) : try await manager.hold(name)
                logger.info("\(name): open, \(HumanText.size(disk.capacityByteCount))")
                exporter.export(disk)
                if isFirst { await tried() }
                isFirst = false
                complaint = ""
                await logEvents(of: disk)
                // Its events end when it is closed: by a reload, or with the manager.
                if manager.configuration.lun(named: name) == nil { return logger.info("\(name): given up") }
            } catch .cancelled {
                break
            } catch {
                // Once for each new reason, not once for each try.
                let words = "\(name): \(error)"
                if words != complaint { logger.warning("\(words)") }
                complaint = words
                if isFirst { await tried() }
                isFirst = false
                if manager.configuration.lun(named: name) == nil { return }
            }
            try? await Task.sleep(for: .seconds(2))
        }
        // Whoever waits for the first try waits no longer.
        if isFirst { await tried() }
    }

    private func logEvents(of disk: MultipathDisk) async {
        for await event in disk.events {
            let who = event.actor.map { " (by \($0))" } ?? ""
            logger.log(level: EventRecord.level(ofKind: event.kind), "\(event.disk): \(event)\(who)")
        }
    }

    // MARK: Reload

    private func reloadOnHangUp() async {
        for await _ in SignalStream.of(SIGHUP) {
            service.reloading()
            do throws(ControlFailure) {
                let report = try await manager.reload(nil, dryRun: false, as: "SIGHUP")
                logger.notice("reloaded \(report.file ?? ""): \(report.changes.isEmpty ? "nothing has changed" : "\(report.changes.count) changes")")
                for change in report.changes { logger.log(level: change.effect == .left ? .warning : .notice, "\(change)") }
            } catch {
                logger.error("\(error.message)")
                for mistake in error.mistakes ?? [] { logger.error("\(mistake)") }
            }
            exporter.renewKeys()
            service.ready()
        }
    }

    // MARK: Status

    /// Answers the watchdog as long as the reactor does, and tells the service manager how the LUNs are.
    private func tellStatus() async {
        let pause = service.watchdogInterval.map { min($0 / 2, .seconds(2)) } ?? .seconds(2)
        var told = ""
        while !Task.isCancelled {
            let report = await manager.report()
            if Task.isCancelled { return }
            service.alive()
            let status = Self.status(report)
            if status != told { service.status(status) }
            told = status
            try? await Task.sleep(for: pause)
        }
    }

    static func status(_ report: PathsReport) -> String {
        guard !report.luns.isEmpty else { return "no LUN is open" }
        let words = report.luns.prefix(8).map { lun in
            "\(lun.name) \(lun.state.rawValue)" + (lun.troubles.map { " (\($0))" } ?? "")
        }
        return words.joined(separator: ", ") + (report.luns.count > 8 ? " and \(report.luns.count - 8) more" : "")
    }
}

/// Counts LUNs that were tried once.
private actor OpeningCount {
    private var pending = 0
    private var waiting: [CheckedContinuation<Void, Never>] = []

    func expect() { pending += 1 }

    func tried() {
        pending -= 1
        guard pending == 0 else { return }
        for continuation in waiting { continuation.resume() }
        waiting = []
    }

    func whenDone() async {
        guard pending > 0 else { return }
        await withCheckedContinuation { waiting.append($0) }
    }
}

/// A signal each time it comes.
enum SignalStream {
    static func of(_ number: Int32) -> AsyncStream<Void> {
        let (stream, continuation) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        signal(number, SIG_IGN)
        let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
        source.setEventHandler { continuation.yield() }
        source.resume()
        nonisolated(unsafe) let ended = source
        continuation.onTermination = { _ in ended.cancel() }
        return stream
    }
}
