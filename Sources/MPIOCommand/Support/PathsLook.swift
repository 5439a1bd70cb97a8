import Foundation
import MPIO

/// Logs in to LUNs that nobody holds, looks at them, and leaves.
enum PathsLook {
    /// Returns what `use` makes of it, which is called before the targets are left.
    static func look<Result: Sendable>(
        at luns: [String], _ policy: Configuration, limits: OpeningLimits, use: @Sendable ([LUNSnapshot]) throws -> Result
    ) async throws -> Result {
        try await withManager(policy, subcommand: "paths", isInspectable: false, lookLimits: limits) { manager in
            let failed = await withTaskGroup(of: LUNSnapshot?.self) { group in
                for lun in luns { group.addTask { await open(lun, manager, policy, limits.total) } }
                return await group.reduce(into: [LUNSnapshot]()) { if let lun = $1 { $0.append(lun) } }
            }
            try Task.checkCancellation()
            var found = await manager.report().luns
            // This process holds nothing once it has printed the table.
            for index in found.indices { found[index].holder = nil }
            let all = Dictionary((found + failed).map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
            return try use(luns.compactMap { all[$0] })
        }
    }

    /// Nil where it opened; else what can be said of it.
    private static func open(
        _ name: String, _ manager: PathManager, _ policy: Configuration, _ timeout: Duration
    ) async -> LUNSnapshot? {
        let kind = policy.lun(named: name)?.settings.policy.kind.rawValue ?? ""
        do throws(PathManagerError) {
            _ = try await manager.open(name)
            return nil
        } catch .noUsablePath(_, let troubles) {
            let now = Timestamp.format(Date())
            return LUNSnapshot(
                name: name, policy: kind, state: .failed,
                paths: troubles.map { trouble in
                    let kind = trouble.name.hasPrefix("/") ? PathSnapshot.Transport.device : .iscsi
                    let isConnecting = trouble.words == PathState.connecting.rawValue
                    var path = PathSnapshot(
                        id: trouble.name, transport: kind, portal: trouble.name, state: isConnecting ? .connecting : .failed)
                    path.lastError = LastError(at: now, reason: isConnecting ? "no answer within \(HumanText.span(seconds: timeout / .seconds(1)))" : trouble.words)
                    return path
                })
        } catch {
            var lun = LUNSnapshot(name: name, policy: kind, state: .failed)
            lun.error = "\(error)"
            return lun
        }
    }
}
