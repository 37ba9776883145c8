"""Units that reduce M tokens to one: cross-attention with a learned query (C), linear over the tokens (L).

Contract: a module holds the parameters of all units of one tree level, unit after unit along the first dim,
and computes any batch of them at once. Three forms give the same function:

- `forward`: ordinary. Tokens in, keys and values formed. The reference form.
- `absorbed`: tokens in, keys and values never formed: logits = token . (Wk^T q), and the value projection
  is applied to the attention-weighted sum of tokens, once per head instead of once per token.
- `folded`: patches in, tokens never formed either: with token = x . T (T the embedding table of a channel)
  logits = x . (T Wk^T q) and out_h = sum_c alpha_hc x_c . (T_c Wv_h^T). The products of parameters are
  made once per step, not once per sample.

A key bias adds the same to every logit and drops out of the softmax: it is not a parameter here.
Products of parameters, logits and softmax run in float32 at least, also under autocast; the large products
with activations run in autocast's type.

Letters: U units of a batch, M members of a unit, N = B * L patches, D width, A attention heads, E = D / A,
Q pixels of a patch plus the pixel of ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.folded import pixel_attention
from model.network.tokenise import Rows


@dataclass(frozen=True)
class UnitRows:
    """Which parameters a batch of units has: rows by unit, and rows by member (linear units only)."""

    units: Rows
    members: Rows


class CrossAttentionUnits(nn.Module):
    """Cross-attention units: out = Wo concat_h(sum_m softmax_m(q_h . k_hm) v_hm) + bo, q from a learned query.

    Args:
        num_units: U_all, units held. Parameters are (U_all * D, ...): unit u owns rows u * D .. (u + 1) * D.
        width: D.
        heads: A, divides D.
    """

    def __init__(self, *, num_units: int, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        rows = num_units * width
        self.query = nn.Parameter(torch.empty(rows))
        self.q_weight = nn.Parameter(torch.empty(rows, width))
        self.q_bias = nn.Parameter(torch.empty(rows))
        self.k_weight = nn.Parameter(torch.empty(rows, width))
        self.v_weight = nn.Parameter(torch.empty(rows, width))
        self.v_bias = nn.Parameter(torch.empty(rows))
        self.out_weight = nn.Parameter(torch.empty(rows, width))
        self.out_bias = nn.Parameter(torch.empty(rows))

    def forward(self, tokens_UMND: Tensor, rows: UnitRows) -> Tensor:
        """The ordinary form.

        Args:
            tokens_UMND: M tokens of each unit at N patches.
            rows: which of the units held these are.

        Returns:
            (U, N, D).
        """
        U, M, N, D = tokens_UMND.shape
        split = (U, M, N, self.heads, D // self.heads)
        flat_UTD = tokens_UMND.reshape(U, M * N, D)
        k = (flat_UTD @ self._matrix(self.k_weight, rows.units).mT).view(split).permute(0, 2, 3, 1, 4)
        v_UMND = flat_UTD @ self._matrix(self.v_weight, rows.units).mT + self._vector(self.v_bias, rows.units)
        v = v_UMND.to(k.dtype).view(split).permute(0, 2, 3, 1, 4)
        q_UD = self._projected_query(rows.units)
        q = q_UD.view(U, 1, self.heads, 1, -1).to(k.dtype).expand(U, N, self.heads, 1, D // self.heads)
        out_UNAE = F.scaled_dot_product_attention(q, k, v).squeeze(3)
        return self._output(out_UNAE.reshape(U, N, D), rows.units)

    def absorbed(self, tokens_UMND: Tensor, rows: UnitRows) -> Tensor:
        """`forward` without keys and values; same arguments, same function."""
        U, M, N, D = tokens_UMND.shape
        with torch.autocast(tokens_UMND.device.type, enabled=False):
            logits_UMNA = (at_least_float32(tokens_UMND).view(U, M * N, D) @ self._query_key(rows.units)).view(
                U, M, N, -1
            )
            alpha_UNAM = logits_UMNA.softmax(dim=1).permute(0, 2, 3, 1)
        dtype = matmul_dtype(tokens_UMND)
        mixed_UNAD = alpha_UNAM.to(dtype) @ tokens_UMND.transpose(1, 2).to(dtype)
        v_UAED = self._matrix(self.v_weight, rows.units).view(U, self.heads, -1, D)
        out_UANE = mixed_UNAD.transpose(1, 2) @ v_UAED.mT.to(dtype)
        out_UND = out_UANE.transpose(1, 2).reshape(U, N, D) + self._vector(self.v_bias, rows.units)
        return self._output(out_UND, rows.units)

    def folded(self, patches_UMQN: Tensor, table_UMQD: Tensor, rows: UnitRows) -> Tensor:
        """`forward` of tokens = patches . table, without forming them.

        Args:
            patches_UMQN: pixels, then a pixel of ones, of M channels of each unit.
            table_UMQD: embedding tables of these channels.
            rows: which of the units held these are.

        Returns:
            (U, N, D).
        """
        U, M, Q, D = table_UMQD.shape
        with torch.autocast(patches_UMQN.device.type, enabled=False):
            table_UTD = at_least_float32(table_UMQD).reshape(U, M * Q, D)
            logit_UMQA = (table_UTD @ self._query_key(rows.units)).view(U, M, Q, self.heads)
            v_weight_UDD = at_least_float32(self._matrix(self.v_weight, rows.units))
            value_UMQD = (table_UTD @ v_weight_UDD.mT).view(U, M, Q, D)
        out_UDN = pixel_attention(patches_UMQN, logit_UMQA, value_UMQD, dtype=matmul_dtype(patches_UMQN))
        return self._output(out_UDN.mT + self._vector(self.v_bias, rows.units), rows.units)

    def _query_key(self, units: Rows) -> Tensor:
        """Wk_h^T q_h / sqrt(E) per unit and head, (U, D, A): what a token is multiplied with to give its logits."""
        q_UD = self._projected_query(units)
        U, D = q_UD.shape
        k_UAED = at_least_float32(self._matrix(self.k_weight, units)).view(U, self.heads, -1, D)
        q_UAE = q_UD.view(U, self.heads, -1) * (D // self.heads) ** -0.5
        key_UDA: Tensor = (q_UAE.unsqueeze(2) @ k_UAED).squeeze(2).mT
        return key_UDA

    def _projected_query(self, units: Rows) -> Tensor:
        with torch.autocast(self.query.device.type, enabled=False):
            query_UD = at_least_float32(units.take(self.query.view(-1, self.width)))
            weight_UDD = at_least_float32(self._matrix(self.q_weight, units))
            bias_UD = at_least_float32(units.take(self.q_bias.view(-1, self.width)))
            return (weight_UDD @ query_UD.unsqueeze(2)).squeeze(2) + bias_UD

    def _output(self, attended_UND: Tensor, units: Rows) -> Tensor:
        weight_UDD = self._matrix(self.out_weight, units)
        bias_U1D = self._vector(self.out_bias, units)
        dtype = matmul_dtype(attended_UND)
        return torch.baddbmm(bias_U1D.to(dtype), attended_UND.to(dtype), weight_UDD.mT.to(dtype))

    def _matrix(self, parameter: Tensor, units: Rows) -> Tensor:
        return units.take(parameter.view(-1, self.width, self.width))

    def _vector(self, parameter: Tensor, units: Rows) -> Tensor:
        return units.take(parameter.view(-1, 1, self.width))


class LinearUnits(nn.Module):
    """Linear units: out = sum_m w_m token_m + b, one scalar per member and one per unit.

    Args:
        num_units: units held.
        num_members: members of all units held; member i belongs to one unit and has row i of `weight`.
    """

    def __init__(self, *, num_units: int, num_members: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_members))
        self.bias = nn.Parameter(torch.empty(num_units))

    def forward(self, tokens_UMND: Tensor, rows: UnitRows) -> Tensor:
        """The ordinary form: (U, M, N, D) tokens to (U, N, D)."""
        U, M, N, D = tokens_UMND.shape
        weight_U1M = rows.members.take(self.weight).view(U, 1, M)
        out_UND = (weight_U1M @ tokens_UMND.reshape(U, M, N * D)).view(U, N, D)
        return out_UND + rows.units.take(self.bias).view(U, 1, 1)

    def absorbed(self, tokens_UMND: Tensor, rows: UnitRows) -> Tensor:
        """As `forward`: a linear unit has nothing to absorb."""
        return self.forward(tokens_UMND, rows)

    def folded(self, patches_UMQN: Tensor, table_UMQD: Tensor, rows: UnitRows) -> Tensor:
        """`forward` of tokens = patches . table: one patch embedding over all channels of the unit."""
        U, M, Q, N = patches_UMQN.shape
        weight_UMQD = rows.members.take(self.weight).view(U, M, 1, 1) * table_UMQD
        out_UND = patches_UMQN.reshape(U, M * Q, N).mT @ weight_UMQD.view(U, M * Q, -1)
        return out_UND + rows.units.take(self.bias).view(U, 1, 1)


Units = CrossAttentionUnits | LinearUnits


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor itself in float32 or float64, else as float32."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def matmul_dtype(tensor: Tensor) -> torch.dtype:
    """The type in which autocast multiplies this tensor; its own type without autocast."""
    kind = tensor.device.type
    if torch.is_autocast_enabled(kind) and tensor.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return tensor.dtype
