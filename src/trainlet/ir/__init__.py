"""The intermediate representation: graph, op table, text form, verifier, interpreter."""

from trainlet.ir.graph import Graph, GraphBuilder, Node, Quant, Tensor, Value
from trainlet.ir.interpret import Execution, interpret
from trainlet.ir.verify import verify

__all__ = ["Execution", "Graph", "GraphBuilder", "Node", "Quant", "Tensor", "Value", "interpret", "verify"]
