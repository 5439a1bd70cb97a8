/// Asks `condition` every few milliseconds until it holds; false where it never did within `limit`. For what another
/// process or thread brings about: a test waits for the event, never for long enough.
public func eventually(
    within limit: Duration = .seconds(40), every step: Duration = .milliseconds(5),
    _ condition: () async throws -> Bool
) async throws -> Bool {
    let deadline = ContinuousClock.now + limit
    while true {
        if try await condition() { return true }
        if ContinuousClock.now >= deadline { return false }
        try await Task.sleep(for: step)
    }
}
