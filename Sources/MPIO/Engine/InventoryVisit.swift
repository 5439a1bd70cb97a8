import Multipath

/// Keeps a session just long enough to take its inventory.
final class InventoryVisit: SessionObserver {
    private let inventory: SessionInventory
    private var report: ((Result<[InventoryEntry], InventoryFailure>) -> Void)?
    private var observation = 0

    private init(_ inventory: SessionInventory, report: @escaping (Result<[InventoryEntry], InventoryFailure>) -> Void) {
        self.inventory = inventory
        self.report = report
    }

    static func start(
        _ inventory: SessionInventory, report: @escaping (Result<[InventoryEntry], InventoryFailure>) -> Void
    ) {
        let visit = InventoryVisit(inventory, report: report)
        // The channel keeps the visit until it stops observing.
        visit.observation = inventory.channel.observe(visit)
        if inventory.path.isLoggedIn { visit.sessionLoggedIn() }
        inventory.path.connect(for: inventory.channel.client)
    }

    func sessionLoggedIn() {
        inventory.take { [self] result in finish(result) }
    }

    func sessionLost(_ failure: PathFailure) { finish(.failure(InventoryFailure(failure))) }

    private func finish(_ result: Result<[InventoryEntry], InventoryFailure>) {
        guard let report else { return }
        self.report = nil
        inventory.channel.stopObserving(observation)
        inventory.path.release(inventory.channel.client)
        report(result)
    }
}

/// Why a session's units could not be listed.
package struct InventoryFailure: Error, CustomStringConvertible {
    var failure: PathFailure
    init(_ failure: PathFailure) { self.failure = failure }
    package var description: String { "\(failure)" }
}
