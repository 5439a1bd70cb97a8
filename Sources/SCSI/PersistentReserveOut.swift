/// The parameter list of PERSISTENT RESERVE OUT, but for REGISTER AND MOVE (SPC-4 clause 6.16.3).
public struct ReservationParameters: Hashable, Sendable {
    /// RESERVATION KEY: the one this I_T nexus is registered with; 0 where it is not.
    public var key: UInt64
    /// SERVICE ACTION RESERVATION KEY: the new key, or the one to preempt.
    public var actionKey: UInt64
    /// APTPL: registrations shall outlive a power loss.
    public var persistsThroughPowerLoss: Bool
    /// ALL_TG_PT: the registration counts for all target ports.
    public var coversAllTargetPorts: Bool
    /// SPEC_I_PT: initiator ports to register beside this one; nil where the bit is not set.
    public var initiatorPorts: [TransportID]?

    /// A list; what is not given is 0 or off.
    public init(
        key: UInt64, actionKey: UInt64 = 0, persistsThroughPowerLoss: Bool = false,
        coversAllTargetPorts: Bool = false, initiatorPorts: [TransportID]? = nil
    ) {
        self.key = key
        self.actionKey = actionKey
        self.persistsThroughPowerLoss = persistsThroughPowerLoss
        self.coversAllTargetPorts = coversAllTargetPorts
        self.initiatorPorts = initiatorPorts
    }

    /// The list as a target received it: 24 bytes exactly, unless SPEC_I_PT is set.
    public init(parsing bytes: [UInt8]) throws(IllegalRequest) {
        guard let key = bytes.uint64(at: 0), let actionKey = bytes.uint64(at: 8), bytes.count >= 24 else {
            throw .parameterListLength
        }
        self.init(
            key: key, actionKey: actionKey, persistsThroughPowerLoss: bytes.bit(0, at: 20),
            coversAllTargetPorts: bytes.bit(2, at: 20))
        guard bytes.bit(3, at: 20) else {
            guard bytes.count == 24 else { throw .parameterListLength }
            return
        }
        guard let count = bytes.uint32(at: 24), bytes.count - 28 == Int(count) else { throw .parameterListLength }
        var ports: [TransportID] = []
        var offset = 28
        while offset < bytes.count {
            guard let port = TransportID(bytes, at: offset) else {
                throw .fieldInParameterList(byte: offset.saturated(to: UInt16.self))
            }
            ports.append(port)
            offset += 1 + port.content.count
        }
        initiatorPorts = ports
    }

    /// 24 bytes, more with initiator ports.
    public func encode() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.append(bigEndian: key)
        bytes.append(bigEndian: actionKey)
        bytes += [0, 0, 0, 0]
        bytes.append(
            (initiatorPorts == nil ? 0 : 0x08) | (coversAllTargetPorts ? 0x04 : 0)
                | (persistsThroughPowerLoss ? 0x01 : 0))
        bytes += [0, 0, 0]
        if let initiatorPorts {
            let list = initiatorPorts.flatMap { $0.encode() }
            bytes.append(bigEndian: list.count.saturated(to: UInt32.self))
            bytes += list
        }
        return bytes
    }
}

/// The parameter list of REGISTER AND MOVE (SPC-4 clause 6.16.4).
public struct RegisterAndMoveParameters: Hashable, Sendable {
    /// RESERVATION KEY: the one that this I_T nexus is registered with.
    public var key: UInt64
    /// SERVICE ACTION RESERVATION KEY: the one that the other nexus is to be registered with.
    public var actionKey: UInt64
    /// UNREG: this nexus' own registration ends.
    public var unregisters: Bool
    /// APTPL.
    public var persistsThroughPowerLoss: Bool
    /// The target port and the initiator port that the reservation moves to.
    public var relativeTargetPort: UInt16
    /// See ``relativeTargetPort``.
    public var initiatorPort: TransportID

    /// A list.
    public init(
        key: UInt64, actionKey: UInt64, unregisters: Bool = false, persistsThroughPowerLoss: Bool = false,
        relativeTargetPort: UInt16, initiatorPort: TransportID
    ) {
        self.key = key
        self.actionKey = actionKey
        self.unregisters = unregisters
        self.persistsThroughPowerLoss = persistsThroughPowerLoss
        self.relativeTargetPort = relativeTargetPort
        self.initiatorPort = initiatorPort
    }

    /// The list as a target received it. Throws where its lengths do not agree, or the initiator port is none.
    public init(parsing bytes: [UInt8]) throws(IllegalRequest) {
        guard let key = bytes.uint64(at: 0), let actionKey = bytes.uint64(at: 8),
            let port = bytes.uint16(at: 18), let count = bytes.uint32(at: 20), bytes.count - 24 == Int(count)
        else { throw .parameterListLength }
        guard let initiatorPort = TransportID(bytes, at: 24), initiatorPort.content.count + 1 == Int(count) else {
            throw .fieldInParameterList(byte: 24)
        }
        self.init(
            key: key, actionKey: actionKey, unregisters: bytes.bit(1, at: 17),
            persistsThroughPowerLoss: bytes.bit(0, at: 17), relativeTargetPort: port, initiatorPort: initiatorPort)
    }

    /// 24 bytes and the initiator port.
    public func encode() -> [UInt8] {
        let transportID = initiatorPort.encode()
        var bytes: [UInt8] = []
        bytes.append(bigEndian: key)
        bytes.append(bigEndian: actionKey)
        bytes += [0, (unregisters ? 2 : 0) | (persistsThroughPowerLoss ? 1 : 0)]
        bytes.append(bigEndian: relativeTargetPort)
        bytes.append(bigEndian: UInt32(transportID.count))
        return bytes + transportID
    }
}
