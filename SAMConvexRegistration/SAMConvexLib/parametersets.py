"""The parameter nodes of a module and their wrappers: one wrapper for each node, whoever asks for it."""

from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

# Priorities of observers of a parameter node. VTK calls the one that was added first after the others of its priority:
# that is the first parameter's, and the controls would be given the value that it had before.
AFTER_WRAPPER = -1.0
AFTER_CONTROLS = -2.0


class ParameterSetLogic(ScriptedLoadableModuleLogic):
    """Logic of a module whose parameters are wrapped in ``parameterClass``."""

    parameterClass = None

    def __init__(self):
        super().__init__()
        self._wrappers = {}

    def getParameterNode(self):
        """The wrapper of the scene's first parameter node; makes one where there is none."""
        return self.parametersOf(super().getParameterNode())

    def parametersOf(self, node):
        """The wrapper of a parameter node, the same one at every call.

        A wrapper reads all its values again at every change of the node, so that a second one doubles what a change
        costs. Wrappers of nodes that left the scene are dropped.
        """
        if node not in self._wrappers:
            self._wrappers = {kept: wrapper for kept, wrapper in self._wrappers.items() if kept.GetScene()}
            self._wrappers[node] = self.parameterClass(node)
        return self._wrappers[node]

    def release(self):
        """Drop all wrappers, before the module is reloaded: they read the node at every change as long as they live."""
        self._wrappers.clear()

    def readAgain(self):
        """Read all values anew after a scene was loaded.

        A parameter node that it fills is modified before the nodes are there that its references name: wrappers that
        were told then keep None for them.
        """
        for node in list(self._wrappers):
            node.Modified()


class GuiConnection:
    """Controls that show a wrapper's values and set them, until ``close``.

    Slicer up to 5.10 forgets the observer that ``connectGui`` adds to the node. It and the wrapper hold each other, so
    that Python may free both while the node still calls the observer. Here it is remembered and removed.
    """

    def __init__(self, wrapper, gui):
        self._wrapper = wrapper
        self._observers = []
        # connectGui adds its observers by the wrapper's own method.
        wrapper.AddObserver = self._addObserver
        try:
            self._tag = wrapper.connectGui(gui)
        finally:
            del wrapper.AddObserver

    def _addObserver(self, event, callback, _priority=0.0):
        tag = self._wrapper.parameterNode.AddObserver(event, callback, AFTER_WRAPPER)
        self._observers.append(tag)
        return tag

    def close(self):
        self._wrapper.disconnectGui(self._tag)
        for tag in self._observers:
            # Newer versions have removed it: tags are never given twice, removing again does nothing.
            self._wrapper.parameterNode.RemoveObserver(tag)
        self._observers.clear()


def contents(node):
    """All that a parameter node holds, to see whether it was changed: name, parameters, references."""
    parameters = {name: node.GetParameter(name) for name in node.GetParameterNames()}
    roles = [node.GetNthNodeReferenceRole(index) for index in range(node.GetNumberOfNodeReferenceRoles())]
    return node.GetName(), parameters, {role: node.GetNodeReferenceID(role) for role in roles}
